//! A template is program code of a stranger. What the engine's fuel does not pay for is paid for here.
//!
//! The engine counts instructions and the bytes and slots that they make, but takes a value's parts for granted: a list
//! of a list twice, forty times over, is small, and its text or a comparison is not; one that holds itself has no end, and
//! one of a hundred thousand levels no room on the stack. So a template is parsed and then rewritten: wherever it keeps a
//! value, puts one into another, or has the engine walk through one, the value is [measured](super::bounds) first. Chains
//! of operators, which the parser nests without limit, are cut short before it sees them.

use minijinja::machinery::ast::*;
use minijinja::machinery::{Span, Token, parse, tokenize};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Error, ErrorKind};

use super::written::written;

/// Tokens between `{%` or `{{` and its end. Of real templates a few have 300.
const LONGEST_TAG: usize = 1_000;
/// `elif`s of a template, which nest.
const MOST_BRANCHES: usize = 200;

/// Names that no template can spell, of the functions that rewriting calls.
pub(super) const CHECK: &str = " check";
pub(super) const CHECK_PART: &str = " check part";
pub(super) const TEXT: &str = " text";
pub(super) const REMAINDER: &str = " remainder";
/// Pays for a look at each character or item.
pub(super) const LENGTH: &str = " length";
/// Makes a list of what would be made at each look.
pub(super) const MADE: &str = " made";
/// Names of the functions that mark what is the template's own.
pub(super) const OWN: &str = " own";
pub(super) const ROLE: &str = " role";
/// Marks a namespace, which alone can come to hold itself.
pub(super) const NAMESPACE: &str = " namespace";

/// Parses a template into its rewritten form.
pub(super) fn parse_guarded<'a>(source: &'a str, syntax: &SyntaxConfig) -> Result<Stmt<'a>, Error> {
    let too_long = |what: String| Error::new(ErrorKind::SyntaxError, what);
    let (mut tag, mut branches) = (0, 0);
    for token in tokenize(source, false, syntax.clone()) {
        tag = match token?.0 {
            Token::TemplateData(_) | Token::VariableStart | Token::BlockStart => 0,
            Token::Ident("elif") => {
                branches += 1;
                tag + 1
            }
            _ => tag + 1,
        };
        if tag > LONGEST_TAG {
            return Err(too_long(format!("one tag has more than {LONGEST_TAG} tokens")));
        }
        if branches > MOST_BRANCHES {
            return Err(too_long(format!("there are more than {MOST_BRANCHES} branches")));
        }
    }
    parse(source, "chat template", syntax.clone()).map(|template| statement(&template))
}

pub(super) fn call<'a>(function: &'static str, args: Vec<Expr<'a>>, span: Span) -> Expr<'a> {
    let function = Expr::Var(Spanned::new(Var { id: function }, span));
    Expr::Call(Spanned::new(Call { expr: function, args: args.into_iter().map(CallArg::Pos).collect() }, span))
}

/// The rewritten expression, measured.
pub(super) fn checked<'a>(e: &Expr<'a>) -> Expr<'a> {
    wrapped(CHECK, e)
}

fn wrapped<'a>(function: &'static str, e: &Expr<'a>) -> Expr<'a> {
    if is_scalar(e) { expression(e) } else { call(function, vec![expression(e)], e.span()) }
}

/// A number or a short string, which costs no more than the instruction that names it.
pub(super) fn is_scalar(e: &Expr) -> bool {
    let short = |text: &str| text.len() <= 64;
    matches!(e, Expr::Const(constant) if constant.value.as_object().is_none() && constant.value.as_str().is_none_or(short))
}

/// What is looked at by its length, such as the base of an index.
pub(super) fn read<'a>(e: Expr<'a>) -> Expr<'a> {
    let span = e.span();
    if is_scalar(&e) { e } else { call(LENGTH, vec![e], span) }
}

/// An operator on two expressions that may come to a list.
pub(super) fn listing<'a>(operator: Expr<'a>, span: Span) -> Expr<'a> {
    call(MADE, vec![operator], span)
}

/// The base of an index: looking up a name costs no length.
pub(super) fn indexed<'a>(base: Expr<'a>, subscript: &Expr<'a>) -> Expr<'a> {
    match subscript {
        Expr::Const(name) if name.value.as_str().is_some() => base,
        _ => read(base),
    }
}

fn all<'a>(expressions: &[Expr<'a>]) -> Vec<Expr<'a>> {
    expressions.iter().map(expression).collect()
}

pub(super) fn optional<'a>(e: &Option<Expr<'a>>) -> Option<Expr<'a>> {
    e.as_ref().map(expression)
}

pub(super) fn arguments<'a>(args: &[CallArg<'a>]) -> Vec<CallArg<'a>> {
    let argument = |arg: &CallArg<'a>| match arg {
        CallArg::Pos(e) => CallArg::Pos(checked(e)),
        CallArg::Kwarg(name, e) => CallArg::Kwarg(name, checked(e)),
        CallArg::PosSplat(e) => CallArg::PosSplat(checked(e)),
        CallArg::KwargSplat(e) => CallArg::KwargSplat(checked(e)),
    };
    args.iter().map(argument).collect()
}

pub(super) fn expression<'a>(e: &Expr<'a>) -> Expr<'a> {
    let span = e.span();
    match e {
        Expr::Var(var) => Expr::Var(Spanned::new(Var { id: var.id }, span)),
        Expr::Const(constant) => Expr::Const(Spanned::new(Const { value: constant.value.clone() }, span)),
        Expr::Slice(s) => {
            let (start, stop, step) = (optional(&s.start), optional(&s.stop), optional(&s.step));
            let slice = Slice { expr: read(expression(&s.expr)), start, stop, step };
            listing(Expr::Slice(Spanned::new(slice, span)), span)
        }
        Expr::UnaryOp(unary) => {
            let op = if matches!(unary.op, UnaryOpKind::Not) { UnaryOpKind::Not } else { UnaryOpKind::Neg };
            Expr::UnaryOp(Spanned::new(UnaryOp { op, expr: expression(&unary.expr) }, span))
        }
        Expr::BinOp(binary) => operation(binary, span),
        Expr::Compare(c) => {
            let op = |op: &CompareOp<'a>| CompareOp { op: op.op, expr: checked(&op.expr) };
            Expr::Compare(Spanned::new(Compare { expr: checked(&c.expr), ops: c.ops.iter().map(op).collect() }, span))
        }
        Expr::IfExpr(i) => {
            let (test_expr, true_expr) = (expression(&i.test_expr), expression(&i.true_expr));
            let false_expr = optional(&i.false_expr);
            Expr::IfExpr(Spanned::new(IfExpr { test_expr, true_expr, false_expr }, span))
        }
        Expr::Filter(filter) => Expr::Filter(Spanned::new(self::filter(filter), span)),
        Expr::Test(t) => {
            let test = Test { name: t.name, expr: expression(&t.expr), args: plain_arguments(&t.args) };
            Expr::Test(Spanned::new(test, span))
        }
        Expr::GetAttr(attr) => {
            Expr::GetAttr(Spanned::new(GetAttr { expr: expression(&attr.expr), name: attr.name }, span))
        }
        Expr::GetItem(item) => {
            let subscript_expr = checked(&item.subscript_expr);
            let expr = indexed(expression(&item.expr), &item.subscript_expr);
            Expr::GetItem(Spanned::new(GetItem { expr, subscript_expr }, span))
        }
        Expr::Call(c) => Expr::Call(self::called(c)),
        Expr::List(list) => part_of(Expr::List(Spanned::new(List { items: all(&list.items) }, span)), span),
        Expr::Tuple(tuple) => part_of(Expr::Tuple(Spanned::new(Tuple { items: all(&tuple.items) }, span)), span),
        Expr::Map(map) => {
            // A key is hashed as soon as the map is made.
            let keys = map.keys.iter().map(checked).collect();
            part_of(Expr::Map(Spanned::new(Map { keys, values: all(&map.values) }, span)), span)
        }
    }
}

/// What is assigned to: names, attributes, and tuples of them, which hold nothing yet.
fn target<'a>(e: &Expr<'a>) -> Expr<'a> {
    let each = |items: &[Expr<'a>]| items.iter().map(target).collect();
    match e {
        Expr::List(list) => Expr::List(Spanned::new(List { items: each(&list.items) }, e.span())),
        Expr::Tuple(tuple) => Expr::Tuple(Spanned::new(Tuple { items: each(&tuple.items) }, e.span())),
        other => expression(other),
    }
}

/// A literal: what it holds is measured with it.
pub(super) fn part_of<'a>(literal: Expr<'a>, span: Span) -> Expr<'a> {
    match literal.as_const() {
        Some(_) => literal,
        None => call(CHECK, vec![literal], span),
    }
}

fn operation<'a>(binary: &Spanned<BinOp<'a>>, span: Span) -> Expr<'a> {
    use BinOpKind::{Add, Concat, Div, Eq, FloorDiv, Gt, Gte, In, Lt, Lte, Mul, Ne, Pow, Rem, ScAnd, ScOr, Sub};
    let with = |left, right| Expr::BinOp(Spanned::new(BinOp { op: binary.op, left, right }, span));
    let (left, right) = (&binary.left, &binary.right);
    match binary.op {
        Eq | Ne | Lt | Lte | Gt | Gte | In if !is_scalar(left) && !is_scalar(right) => {
            with(checked(left), checked(right))
        }
        Concat => with(wrapped(TEXT, left), wrapped(TEXT, right)),
        Rem => call(REMAINDER, vec![checked(left), checked(right)], span),
        Add if !is_scalar(left) && !is_scalar(right) => listing(with(expression(left), expression(right)), span),
        Mul => listing(with(expression(left), expression(right)), span),
        Eq | Ne | Lt | Lte | Gt | Gte | In | ScAnd | ScOr | Add | Sub | Div | FloorDiv | Pow => {
            with(expression(left), expression(right))
        }
    }
}

/// Arguments that are measured by what they are given to.
pub(super) fn plain_arguments<'a>(args: &[CallArg<'a>]) -> Vec<CallArg<'a>> {
    let argument = |arg: &CallArg<'a>| match arg {
        CallArg::Pos(e) => CallArg::Pos(expression(e)),
        CallArg::Kwarg(name, e) => CallArg::Kwarg(name, expression(e)),
        CallArg::PosSplat(e) => CallArg::PosSplat(checked(e)),
        CallArg::KwargSplat(e) => CallArg::KwargSplat(checked(e)),
    };
    args.iter().map(argument).collect()
}

fn filter<'a>(filter: &Spanned<Filter<'a>>) -> Filter<'a> {
    Filter { name: filter.name, expr: optional(&filter.expr), args: plain_arguments(&filter.args) }
}

fn called<'a>(c: &Spanned<Call<'a>>) -> Spanned<Call<'a>> {
    Spanned::new(Call { expr: expression(&c.expr), args: arguments(&c.args) }, c.span())
}

fn body<'a>(statements: &[Stmt<'a>]) -> Vec<Stmt<'a>> {
    statements.iter().map(statement).collect()
}

fn macro_of<'a>(m: &Spanned<Macro<'a>>) -> Spanned<Macro<'a>> {
    let (args, defaults) = (m.args.iter().map(target).collect(), m.defaults.iter().map(checked).collect());
    Spanned::new(Macro { name: m.name, args, defaults, body: body(&m.body) }, m.span())
}

fn statement<'a>(s: &Stmt<'a>) -> Stmt<'a> {
    match s {
        Stmt::Template(t) => Stmt::Template(Spanned::new(Template { children: body(&t.children) }, t.span())),
        Stmt::EmitExpr(e) => Stmt::EmitExpr(Spanned::new(EmitExpr { expr: written(&e.expr, true) }, e.span())),
        Stmt::EmitRaw(raw) if raw.raw.chars().all(char::is_whitespace) => {
            Stmt::EmitRaw(Spanned::new(EmitRaw { raw: raw.raw }, raw.span()))
        }
        Stmt::EmitRaw(raw) => {
            let text = Expr::Const(Spanned::new(Const { value: raw.raw.into() }, raw.span()));
            Stmt::EmitExpr(Spanned::new(EmitExpr { expr: call(OWN, vec![text], raw.span()) }, raw.span()))
        }
        Stmt::ForLoop(l) => {
            let iter = read(expression(&l.iter));
            let (filter_expr, recursive) = (optional(&l.filter_expr), l.recursive);
            let (target, body, else_body) = (target(&l.target), body(&l.body), body(&l.else_body));
            Stmt::ForLoop(Spanned::new(ForLoop { target, iter, filter_expr, recursive, body, else_body }, l.span()))
        }
        Stmt::IfCond(i) => {
            let (true_body, false_body) = (body(&i.true_body), body(&i.false_body));
            Stmt::IfCond(Spanned::new(IfCond { expr: expression(&i.expr), true_body, false_body }, i.span()))
        }
        Stmt::WithBlock(w) => {
            let assignments = w
                .assignments
                .iter()
                .map(|(to, e)| (target(to), call(CHECK, vec![written(e, false)], w.span())))
                .collect();
            Stmt::WithBlock(Spanned::new(WithBlock { assignments, body: body(&w.body) }, w.span()))
        }
        Stmt::Set(set) => {
            let function = if matches!(set.target, Expr::GetAttr(_)) { CHECK_PART } else { CHECK };
            let set_to =
                Set { target: target(&set.target), expr: call(function, vec![written(&set.expr, false)], set.span()) };
            Stmt::Set(Spanned::new(set_to, set.span()))
        }
        Stmt::SetBlock(set) => {
            let (target, filter) = (target(&set.target), optional(&set.filter));
            Stmt::SetBlock(Spanned::new(SetBlock { target, filter, body: body(&set.body) }, set.span()))
        }
        // Nothing here is HTML.
        Stmt::AutoEscape(a) => {
            let enabled = Expr::Const(Spanned::new(Const { value: false.into() }, a.span()));
            Stmt::AutoEscape(Spanned::new(AutoEscape { enabled, body: body(&a.body) }, a.span()))
        }
        Stmt::FilterBlock(f) => {
            let (filter, filter_span) = (expression(&f.filter), f.filter_span);
            Stmt::FilterBlock(Spanned::new(FilterBlock { filter, filter_span, body: body(&f.body) }, f.span()))
        }
        Stmt::Macro(m) => Stmt::Macro(macro_of(m)),
        Stmt::CallBlock(c) => {
            let (call, macro_decl, call_expr_span) = (called(&c.call), macro_of(&c.macro_decl), c.call_expr_span);
            Stmt::CallBlock(Spanned::new(CallBlock { call, call_expr_span, macro_decl }, c.span()))
        }
        Stmt::Continue(c) => Stmt::Continue(Spanned::new(Continue, c.span())),
        Stmt::Break(b) => Stmt::Break(Spanned::new(Break, b.span())),
        Stmt::Do(d) => Stmt::Do(Spanned::new(Do { call: called(&d.call) }, d.span())),
    }
}
