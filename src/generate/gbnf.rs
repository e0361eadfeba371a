//! GBNF, the grammars of llama.cpp, as Lark grammars.
//!
//! The parser behind constraints reads a text in lexemes, each by a regular expression and as long as it can be. So that
//! this changes as little as possible about what a grammar says, everything that is regular is put into as few lexemes as
//! possible: a grammar without recursion becomes one. Where two lexemes meet and the first could go on with what the
//! second begins with, it does.

use std::fmt::Write;

use crate::error::{Error, Result};

/// Groups in groups, at most.
const MAX_DEPTH: usize = 64;

/// A number of repetitions, at most.
const MAX_REPEATS: u32 = 10_000;

#[derive(Clone, Debug)]
enum Expr {
    Literal(String),
    /// A class of characters as a regular expression.
    Class(String),
    Rule(usize),
    Repeat(Box<Expr>, u32, Option<u32>),
    Sequence(Vec<Expr>),
    Choice(Vec<Expr>),
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
    depth: usize,
    names: Vec<&'a str>,
    /// Where each name stood first.
    places: Vec<usize>,
    bodies: Vec<Option<Expr>>,
}

/// The grammar in Lark.
///
/// # Errors
/// `INVALID_ARGUMENT` says at which line; `UNSUPPORTED`: it names tokens.
pub fn to_lark(text: &str) -> Result<String> {
    let mut parser = Parser { text, at: 0, depth: 0, names: Vec::new(), places: Vec::new(), bodies: Vec::new() };
    let root = parser.rule("root");
    parser.skip();
    while parser.at < text.len() {
        parser.definition()?;
    }
    if parser.bodies[root].is_none() {
        return Err(Error::invalid("the grammar has no rule \"root\""));
    }
    let mut rules = Vec::new();
    for (rule, body) in std::mem::take(&mut parser.bodies).into_iter().enumerate() {
        let place = parser.places[rule];
        rules.push(body.ok_or_else(|| parser.fault_at(place, &format!("no rule {:?}", parser.names[rule])))?);
    }
    Ok(Writer::new(rules).write(root))
}

impl<'a> Parser<'a> {
    fn definition(&mut self) -> Result<()> {
        let start = self.at;
        let name = self.name().ok_or_else(|| self.fault("the name of a rule is missing"))?;
        self.skip();
        if !self.take("::=") {
            return Err(self.fault("::= is missing"));
        }
        let rule = self.rule(name);
        if self.bodies[rule].is_some() {
            return Err(self.fault_at(start, &format!("rule {name:?} is there twice")));
        }
        self.skip();
        let body = self.choice()?;
        if self.at < self.text.len() && !self.at_definition() {
            return Err(self.fault("unexpected text"));
        }
        self.bodies[rule] = Some(body);
        Ok(())
    }

    fn rule(&mut self, name: &'a str) -> usize {
        self.names.iter().position(|known| *known == name).unwrap_or_else(|| {
            self.names.push(name);
            self.places.push(self.at);
            self.bodies.push(None);
            self.names.len() - 1
        })
    }

    fn choice(&mut self) -> Result<Expr> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(self.fault(&format!("more than {MAX_DEPTH} groups in each other")));
        }
        let mut choices = vec![self.sequence()?];
        while self.take("|") {
            self.skip();
            choices.push(self.sequence()?);
        }
        self.depth -= 1;
        Ok(if choices.len() == 1 { choices.swap_remove(0) } else { Expr::Choice(choices) })
    }

    fn sequence(&mut self) -> Result<Expr> {
        let mut parts = Vec::new();
        while let Some(part) = self.part()? {
            self.skip();
            let part = self.repeated(part)?;
            parts.push(part);
        }
        Ok(if parts.len() == 1 { parts.swap_remove(0) } else { Expr::Sequence(parts) })
    }

    fn part(&mut self) -> Result<Option<Expr>> {
        Ok(match self.peek() {
            Some('"') => Some(self.literal()?),
            Some('[') => Some(self.class()?),
            Some('.') => {
                self.at += 1;
                Some(Expr::Class("(?s:.)".into()))
            }
            Some('(') => {
                self.at += 1;
                self.skip();
                let inner = self.choice()?;
                if !self.take(")") {
                    return Err(self.fault(") is missing"));
                }
                Some(inner)
            }
            Some('<' | '!') => {
                let message = format!("line {}: a grammar that names tokens", self.line(self.at));
                return Err(Error::unsupported(message));
            }
            _ if self.at_definition() => None,
            _ => self.name().map(|name| Expr::Rule(self.rule(name))),
        })
    }

    fn repeated(&mut self, mut part: Expr) -> Result<Expr> {
        loop {
            let (least, most) = match self.peek() {
                Some('*') => (0, None),
                Some('+') => (1, None),
                Some('?') => (0, Some(1)),
                Some('{') => {
                    self.at += 1;
                    self.skip();
                    let least = self.number()?;
                    self.skip();
                    let most = if self.take(",") {
                        self.skip();
                        if self.peek() == Some('}') { None } else { Some(self.number()?) }
                    } else {
                        Some(least)
                    };
                    self.skip();
                    if self.peek() != Some('}') || most.is_some_and(|most| most < least) {
                        return Err(self.fault("a number of repetitions is wrong"));
                    }
                    (least, most)
                }
                _ => return Ok(part),
            };
            self.at += 1;
            self.skip();
            part = Expr::Repeat(Box::new(part), least, most);
        }
    }

    fn number(&mut self) -> Result<u32> {
        let digits = self.taken(|c| c.is_ascii_digit());
        let number = digits.parse().ok().filter(|&number| number <= MAX_REPEATS);
        number.ok_or_else(|| self.fault(&format!("a number of repetitions from 0 to {MAX_REPEATS} is missing")))
    }

    fn literal(&mut self) -> Result<Expr> {
        self.at += 1;
        let mut literal = String::new();
        loop {
            match self.peek() {
                Some('"') => {
                    self.at += 1;
                    return Ok(Expr::Literal(literal));
                }
                Some(_) => literal.push(self.character()?),
                None => return Err(self.fault("\" is missing")),
            }
        }
    }

    fn class(&mut self) -> Result<Expr> {
        self.at += 1;
        let mut class = String::from(if self.take("^") { "[^" } else { "[" });
        let empty = class.len();
        while self.peek() != Some(']') {
            if self.peek().is_none() {
                return Err(self.fault("] is missing"));
            }
            let from = self.character()?;
            let to = if self.peek() == Some('-') && !self.text[self.at..].starts_with("-]") {
                self.at += 1;
                self.character()?
            } else {
                from
            };
            if to < from {
                return Err(self.fault("a range of characters runs backwards"));
            }
            // Writing to a String cannot fail.
            let _ = write!(class, "\\u{{{:x}}}-\\u{{{:x}}}", from as u32, to as u32);
        }
        self.at += 1;
        if class.len() == empty {
            return Err(self.fault("a class has no characters"));
        }
        class.push(']');
        Ok(Expr::Class(class))
    }

    /// A character of a literal or a class, which may be escaped.
    fn character(&mut self) -> Result<char> {
        let c = self.next()?;
        if c != '\\' {
            return Ok(c);
        }
        let digits = match self.next()? {
            'n' => return Ok('\n'),
            't' => return Ok('\t'),
            'r' => return Ok('\r'),
            'x' => 2,
            'u' => 4,
            'U' => 8,
            c @ ('\\' | '"' | '[' | ']' | '-' | '^' | '/') => return Ok(c),
            _ => return Err(self.fault("an unknown escape")),
        };
        let code = self.text.get(self.at..self.at + digits).and_then(|code| u32::from_str_radix(code, 16).ok());
        let c = code.and_then(char::from_u32).ok_or_else(|| self.fault("an escape of no character"))?;
        self.at += digits;
        Ok(c)
    }

    fn next(&mut self) -> Result<char> {
        let c = self.peek().ok_or_else(|| self.fault("the text ends too early"))?;
        self.at += c.len_utf8();
        Ok(c)
    }

    fn peek(&self) -> Option<char> {
        self.text[self.at..].chars().next()
    }

    fn take(&mut self, text: &str) -> bool {
        let there = self.text[self.at..].starts_with(text);
        if there {
            self.at += text.len();
        }
        there
    }

    fn taken(&mut self, is_meant: impl Fn(char) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let taken = &rest[..rest.find(|c| !is_meant(c)).unwrap_or(rest.len())];
        self.at += taken.len();
        taken
    }

    fn name(&mut self) -> Option<&'a str> {
        Some(self.taken(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')).filter(|name| !name.is_empty())
    }

    /// White space and comments.
    fn skip(&mut self) {
        loop {
            self.taken(|c| c.is_ascii_whitespace());
            if self.peek() != Some('#') {
                return;
            }
            self.taken(|c| c != '\n');
        }
    }

    /// Whether a rule begins here.
    fn at_definition(&mut self) -> bool {
        let at = self.at;
        let begins = self.name().is_some() && {
            self.skip();
            self.take("::=")
        };
        self.at = at;
        begins
    }

    fn line(&self, at: usize) -> usize {
        1 + self.text[..at].matches('\n').count()
    }

    fn fault(&self, what: &str) -> Error {
        self.fault_at(self.at, what)
    }

    fn fault_at(&self, at: usize, what: &str) -> Error {
        Error::invalid(format!("line {} of the grammar: {what}", self.line(at)))
    }
}

/// Writes rules as Lark. What is regular becomes terminals: `T0`; the rest rules: `r0`. Each group has a name of its own.
struct Writer {
    rules: Vec<Expr>,
    regular: Vec<bool>,
    /// The names of rules as terminals and as rules, once they are written.
    names: Vec<Option<String>>,
    waiting: Vec<usize>,
    count: usize,
    out: String,
}

impl Writer {
    fn new(rules: Vec<Expr>) -> Writer {
        // Regular are rules of which all rules that they name are so; what names itself, by others too, never becomes so.
        let mut regular = vec![false; rules.len()];
        let mut more = true;
        while std::mem::take(&mut more) {
            // Most rules name later ones.
            for rule in (0..rules.len()).rev() {
                if !regular[rule] && is_regular(&rules[rule], &regular) {
                    (regular[rule], more) = (true, true);
                }
            }
        }
        let names = vec![None; rules.len()];
        Writer { rules, regular, names, waiting: Vec::new(), count: 0, out: String::new() }
    }

    fn write(mut self, root: usize) -> String {
        let start = self.rule_name(root);
        self.line("start", &start);
        while let Some(rule) = self.waiting.pop() {
            let name = self.names[rule].clone().unwrap_or_default();
            let expr = self.rules[rule].clone();
            let body = if self.regular[rule] { self.terminal_body(&expr) } else { self.rule_body(&expr) };
            self.line(&name, &body);
        }
        self.out
    }

    fn line(&mut self, name: &str, body: &str) {
        self.out.push_str(&format!("{name}: {body}\n"));
    }

    fn fresh(&mut self, kind: char) -> String {
        self.count += 1;
        format!("{kind}{}", self.count)
    }

    fn rule_name(&mut self, rule: usize) -> String {
        if let Some(name) = &self.names[rule] {
            return name.clone();
        }
        let name = self.fresh(if self.regular[rule] { 'T' } else { 'r' });
        self.names[rule] = Some(name.clone());
        self.waiting.push(rule);
        name
    }

    fn terminal_body(&mut self, expr: &Expr) -> String {
        match expr {
            Expr::Choice(choices) => {
                let bodies: Vec<String> = choices.iter().map(|choice| self.terminal_body(choice)).collect();
                bodies.join(" | ")
            }
            Expr::Sequence(parts) if parts.is_empty() => "\"\"".into(),
            Expr::Sequence(parts) => {
                let parts: Vec<String> = parts.iter().map(|part| self.terminal(part)).collect();
                parts.join(" ")
            }
            other => self.terminal(other),
        }
    }

    fn terminal(&mut self, expr: &Expr) -> String {
        match expr {
            Expr::Literal(text) => serde_json::Value::from(text.as_str()).to_string(),
            Expr::Class(class) => format!("/{class}/"),
            Expr::Rule(rule) => self.rule_name(*rule),
            Expr::Repeat(inner, least, most) => {
                let inner = match **inner {
                    Expr::Repeat(..) => self.named('T', inner, Writer::terminal_body),
                    _ => self.terminal(inner),
                };
                inner + &repeats(*least, *most)
            }
            group => self.named('T', group, Writer::terminal_body),
        }
    }

    fn rule_body(&mut self, expr: &Expr) -> String {
        match expr {
            Expr::Choice(choices) => {
                let bodies: Vec<String> = choices.iter().map(|choice| self.rule_body(choice)).collect();
                bodies.join(" | ")
            }
            Expr::Sequence(parts) if !parts.is_empty() => {
                // What is regular and stands together becomes one lexeme.
                let mut written = Vec::new();
                let runs = parts.chunk_by(|a, b| is_regular(a, &self.regular) && is_regular(b, &self.regular));
                let runs: Vec<&[Expr]> = runs.collect();
                for run in runs {
                    match run {
                        [one] => written.push(self.part(one)),
                        several => written.push(self.part(&Expr::Sequence(several.to_vec()))),
                    }
                }
                written.join(" ")
            }
            other => self.part(other),
        }
    }

    fn part(&mut self, expr: &Expr) -> String {
        match expr {
            regular if is_regular(regular, &self.regular) => match regular {
                Expr::Rule(rule) => self.rule_name(*rule),
                regular => self.named('T', regular, Writer::terminal_body),
            },
            Expr::Rule(rule) => self.rule_name(*rule),
            Expr::Repeat(inner, least, most) => {
                let inner = match **inner {
                    Expr::Repeat(..) => self.named('r', inner, Writer::rule_body),
                    _ => self.part(inner),
                };
                inner + &repeats(*least, *most)
            }
            group => self.named('r', group, Writer::rule_body),
        }
    }

    fn named(&mut self, kind: char, expr: &Expr, body: fn(&mut Writer, &Expr) -> String) -> String {
        let name = self.fresh(kind);
        let body = body(self, expr);
        self.line(&name, &body);
        name
    }
}

fn repeats(least: u32, most: Option<u32>) -> String {
    match (least, most) {
        (0, None) => "*".into(),
        (1, None) => "+".into(),
        (0, Some(1)) => "?".into(),
        (least, None) => format!("{{{least},}}"),
        (least, Some(most)) => format!("{{{least},{most}}}"),
    }
}

fn is_regular(expr: &Expr, rules: &[bool]) -> bool {
    match expr {
        Expr::Literal(_) | Expr::Class(_) => true,
        Expr::Rule(rule) => rules[*rule],
        Expr::Repeat(inner, ..) => is_regular(inner, rules),
        Expr::Sequence(parts) | Expr::Choice(parts) => parts.iter().all(|part| is_regular(part, rules)),
    }
}
