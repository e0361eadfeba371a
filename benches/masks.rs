//! What the masks of constraints take: `make bench-masks ARGS="MODEL.gguf"`, or `cargo bench --bench masks -- MODEL.gguf`.
//!
//! Each text begins with a new constraint, whose lexer knows nothing yet. Some are texts as models write them, the others
//! are drawn among the tokens that are allowed. `--slow 20` tells the slowest masks, each with the end of the text before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use layerline::{Constraint, ConstraintKind, ConstraintState, Model, Options, TokenizeOptions, Tokenizer};

/// Name, kind, constraint, and a text that follows it, if one is given.
type Case = (&'static str, ConstraintKind, &'static str, &'static str);

const JSON: ConstraintKind = ConstraintKind::JsonSchema;

const CASES: &[Case] = &[
    (
        "an order",
        JSON,
        r#"{"type": "object", "properties": {"customer": {"type": "string"}, "address": {"type": "object", "properties": {"street": {"type": "string"}, "number": {"type": "integer"}, "country": {"enum": ["Denmark", "Norway", "Sweden"]}}, "required": ["street", "number", "country"], "additionalProperties": false}, "express": {"type": "boolean"}, "total": {"type": "number"}}, "required": ["customer", "address", "express", "total"], "additionalProperties": false}"#,
        r#"{"customer": "Ingrid Solveig Larsen", "address": {"street": "Nørrebrogade, at the back", "number": 42, "country": "Denmark"}, "express": true, "total": 1249.95}"#,
    ),
    (
        "free text in strings",
        JSON,
        r#"{"type": "object", "properties": {"title": {"type": "string"}, "summary": {"type": "string"}}, "required": ["title", "summary"], "additionalProperties": false}"#,
        r#"{"title": "The History of \"Bread\" in Europe", "summary": "Bread was first baked about 10,000 years ago.\nGrain was ground between stones, mixed with water and left on hot ashes; later came ovens, yeast and the guilds of bakers, who were fined for short weight. Über 300 Sorten gibt es allein in Deutschland — 日本語のパン also came by way of Portugal."}"#,
    ),
    (
        "short strings",
        JSON,
        r#"{"type": "object", "properties": {"name": {"type": "string", "maxLength": 16}, "code": {"type": "string", "minLength": 2, "maxLength": 6}, "note": {"type": "string", "maxLength": 40}, "long": {"type": "string", "maxLength": 200}}, "required": ["name", "code", "note", "long"], "additionalProperties": false}"#,
        r#"{"name": "Margaret Hill", "code": "QX-17", "note": "Delivered to the neighbours at noon", "long": "The parcel had been opened and closed again with tape of another colour, but nothing seems to be missing from it as far as the customer can tell."}"#,
    ),
    (
        "patterns",
        JSON,
        r#"{"type": "object", "properties": {"name": {"type": "string", "pattern": "^[A-Z][a-z]{2,12}$"}, "phone": {"type": "string", "pattern": "^[0-9]{3}-[0-9]{4}$"}, "slug": {"type": "string", "pattern": "^[a-z0-9]+(-[a-z0-9]+)*$"}, "words": {"type": "string", "pattern": "^[A-Za-z ]+$"}}, "required": ["name", "phone", "slug", "words"], "additionalProperties": false}"#,
        r#"{"name": "Margaret", "phone": "555-0134", "slug": "the-history-of-bread-2", "words": "An example of some words in a row"}"#,
    ),
    (
        "formats",
        JSON,
        r#"{"type": "object", "properties": {"date": {"type": "string", "format": "date"}, "at": {"type": "string", "format": "date-time"}, "mail": {"type": "string", "format": "email"}, "host": {"type": "string", "format": "hostname"}, "id": {"type": "string", "format": "uuid"}, "ip": {"type": "string", "format": "ipv4"}, "link": {"type": "string", "format": "uri"}}, "required": ["date", "at", "mail", "host", "id", "ip", "link"], "additionalProperties": false}"#,
        r#"{"date": "2024-02-29", "at": "2024-02-29T12:30:00Z", "mail": "margaret.hill@example.org", "host": "www.example.org", "id": "123e4567-e89b-12d3-a456-426614174000", "ip": "192.168.0.17", "link": "https://example.org/bread/history?page=2"}"#,
    ),
    (
        "enums and numbers",
        JSON,
        r#"{"type": "array", "items": {"anyOf": [{"enum": ["red", "green", "dark blue", "dark red", "été"]}, {"type": "integer", "minimum": -40, "maximum": 4000}, {"type": "number", "minimum": 0, "maximum": 1}, {"type": "null"}]}}"#,
        r#"["red", 17, 0.125, "dark blue", -3, 3999, null, "dark red", 0.5]"#,
    ),
    (
        "free JSON",
        JSON,
        r#"{}"#,
        r#"{"name": "Larsen", "tags": ["a", "bread and butter", "été"], "size": 12.5e3, "nested": {"empty": {}, "list": [], "flag": false, "text": "line one\nline \"two\"\t\\end"}}"#,
    ),
    (
        "free JSON, any white space",
        JSON,
        r#"{"type": "object", "x-guidance": {"whitespace_flexible": true}}"#,
        "{\n  \"name\": \"Larsen\",\n  \"tags\": [\n    \"a\",\n    \"bread and butter\"\n  ],\n  \"size\": 12.5e3\n}",
    ),
    (
        "free names",
        JSON,
        r#"{"type": "object", "additionalProperties": {"type": "array", "items": {"type": "string", "maxLength": 24}}}"#,
        r#"{"fruit": ["apples", "pears and plums"], "bread": ["rye", "pumpernickel"], "nothing": []}"#,
    ),
    (
        "a tool's call",
        ConstraintKind::Lark,
        "start: \"<tool_call>\\n\" call \"\\n</tool_call>\"\ncall: %json {\"type\": \"object\", \"properties\": {\"name\": {\"enum\": [\"weather\", \"search\"]}, \"arguments\": {\"type\": \"object\"}}, \"required\": [\"name\", \"arguments\"], \"additionalProperties\": false}",
        "<tool_call>\n{\"name\":\"search\",\"arguments\":{\"query\":\"the history of bread\",\"limit\":3}}\n</tool_call>",
    ),
    (
        "arithmetic",
        ConstraintKind::Gbnf,
        "root ::= (expr \"=\" ws num \"\\n\")+\nexpr ::= term ([-+*/] term)*\nterm ::= ident | num | \"(\" ws expr \")\" ws\nident ::= [a-z] [a-z0-9_]* ws\nnum ::= [0-9]+ ws\nws ::= [ \\t\\n]*",
        "(price +3) *count = 45\n12/tax_rate=7\n",
    ),
    (
        "a list of lines",
        ConstraintKind::Gbnf,
        "root ::= item+\nitem ::= \"- \" [^\\r\\n\\x0b\\x0c\\x85\\u2028\\u2029]+ \"\\n\"",
        "- Bread of rye, \"dark\"\n- Butter and 3 kinds of cheese\n- Über alles: Käse\n",
    ),
    (
        "anything but a mark",
        ConstraintKind::Regex,
        r"(.|\n)*END",
        "The text goes on as it likes, with {braces} and \"quotes\".\nIt has lines.\nEND",
    ),
    (
        "chess",
        ConstraintKind::Regex,
        r"(\d+\. ([NBRQK]?[a-h]?x?[a-h][1-8][+#]? ?){1,2})+",
        "1. e4 e5 2. Nf3 Nc6 3. Bb5 a6 ",
    ),
];

/// Time of the processor that this thread has had: other programs do not count.
fn now() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct is valid for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

fn is_allowed(mask: &[u32], token: i32) -> bool {
    mask[token as usize / 32] >> (token % 32) & 1 == 1
}

struct Bench {
    model: Arc<Model>,
    /// Time, case, whether the text was drawn, and the end of the text before.
    masks: Vec<(Duration, &'static str, bool, String)>,
    /// Time to make a constraint, accept a token, and find what is forced.
    made: Vec<Duration>,
    accepted: Vec<Duration>,
    forced: Vec<Duration>,
    random: u64,
}

impl Bench {
    fn draw(&mut self, count: usize) -> usize {
        self.random = self.random.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (self.random >> 33) as usize % count
    }

    /// Follows `given`, or draws up to `drawn` tokens.
    fn text(&mut self, (name, kind, constraint, given): Case, drawn: usize) {
        let model = self.model.clone();
        let tokenizer = model.tokenizer().unwrap();
        let began = Instant::now();
        let mut constraint = Constraint::new(&model, kind, constraint).unwrap_or_else(|e| panic!("{name}: {e}"));
        self.made.push(began.elapsed());
        let mut text = Vec::new();
        for step in 0.. {
            if drawn > 0 && step >= drawn || constraint.progress().unwrap() == ConstraintState::Complete {
                break;
            }
            let began = now();
            let forced = constraint.forced().unwrap();
            self.forced.push(now() - began);
            let began = now();
            let mask = constraint.mask().unwrap();
            let end: String = String::from_utf8_lossy(&text).chars().rev().take(30).collect();
            // Without a choice there is nothing to compute.
            if forced.is_empty() {
                self.masks.push((now() - began, name, drawn > 0, end.chars().rev().collect()));
            }
            let token = match (forced.first(), drawn) {
                (Some(&token), _) => token,
                (None, 0) => {
                    let Some(token) = next_of(tokenizer, &given.as_bytes()[text.len()..], &mask) else {
                        assert_eq!(text.len(), given.len(), "{name}: {}", String::from_utf8_lossy(&text));
                        break;
                    };
                    token
                }
                (None, _) => {
                    let all = 0..tokenizer.vocab_size() as i32;
                    let allowed: Vec<i32> =
                        all.filter(|&token| is_allowed(&mask, token) && !tokenizer.is_end(token).unwrap()).collect();
                    if allowed.is_empty() {
                        break;
                    }
                    allowed[self.draw(allowed.len())]
                }
            };
            let began = now();
            constraint.accept(token).unwrap();
            self.accepted.push(now() - began);
            tokenizer.piece(token, false, &mut text).unwrap();
        }
    }
}

/// The token that the tokeniser begins `rest` with, or else the longest that is allowed.
fn next_of(tokenizer: &Tokenizer, rest: &[u8], mask: &[u32]) -> Option<i32> {
    let options = TokenizeOptions { continues: true, ..TokenizeOptions::default() };
    let first = *tokenizer.tokenize(rest, options).unwrap().first()?;
    if is_allowed(mask, first) {
        return Some(first);
    }
    let begins = |token: &i32| {
        let mut text = Vec::new();
        tokenizer.piece(*token, false, &mut text).unwrap();
        if rest.starts_with(&text) { text.len() } else { 0 }
    };
    let allowed = (0..tokenizer.vocab_size() as i32).filter(|&token| is_allowed(mask, token));
    allowed.max_by_key(begins).filter(|token| begins(token) > 0)
}

fn line(name: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize].as_secs_f64() * 1e6;
    let over = times.iter().filter(|time| time.as_millis() >= 1).count();
    println!(
        "{name:<28} {:>6}  median {:>6.0} µs  p90 {:>6.0}  p99 {:>6.0}  most {:>6.0}  {over} of 1 ms or more",
        times.len(),
        at(0.5),
        at(0.9),
        at(0.99),
        at(1.0),
    );
}

fn main() {
    let mut arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let mut slow = 0;
    if let Some(at) = arguments.iter().position(|argument| argument == "--slow") {
        slow = arguments[at + 1].parse().unwrap();
        arguments.drain(at..at + 2);
    }
    let Some(path) = arguments.first() else {
        println!("cargo bench --bench masks -- MODEL.gguf [--slow N] [name of a case]");
        return;
    };
    let options = Options { context_length: 64, ..Options::default() };
    let model = Model::open(path.as_ref(), &options).unwrap();
    let tokens = model.tokenizer().unwrap().vocab_size();
    let began = Instant::now();
    let _first = Constraint::new(&model, ConstraintKind::Regex, "a").unwrap();
    println!("{path}: {tokens} tokens; the first constraint took {:.0} ms", began.elapsed().as_secs_f64() * 1e3);
    let mut bench =
        Bench { model, masks: Vec::new(), made: Vec::new(), accepted: Vec::new(), forced: Vec::new(), random: 1 };
    for case in CASES.iter().filter(|case| arguments.get(1).is_none_or(|name| case.0 == name)) {
        bench.text(*case, 0);
        for _ in 0..3 {
            bench.text(*case, 80);
        }
    }
    let mut by_case = BTreeMap::<_, Vec<Duration>>::new();
    for (time, name, drawn, _) in &bench.masks {
        by_case.entry((*drawn, *name)).or_default().push(*time);
    }
    for ((drawn, name), times) in by_case {
        line(&format!("{}{name}", if drawn { "drawn: " } else { "" }), times);
    }
    for drawn in [false, true] {
        let times = bench.masks.iter().filter(|mask| mask.2 == drawn).map(|mask| mask.0);
        line(if drawn { "all masks of drawn texts" } else { "all masks of given texts" }, times.collect());
    }
    line("making a constraint", bench.made);
    line("accepting a token", bench.accepted);
    line("finding what is forced", bench.forced);
    bench.masks.sort_by_key(|mask| std::cmp::Reverse(mask.0));
    for (time, name, drawn, end) in bench.masks.iter().take(slow) {
        println!("{:>8.0} µs {name}{}: …{end:?}", time.as_secs_f64() * 1e6, if *drawn { ", drawn" } else { "" });
    }
}
