//! Marks the literals of an expression whose value is written or kept as the template's own. Literals that are compared,
//! searched for or passed to methods stay as they are.

use minijinja::machinery::ast::*;

use super::guard::{
    self, CHECK, OWN, ROLE, TEXT, call, checked, expression, indexed, is_scalar, listing, optional, part_of, read,
};

/// An expression rewritten as the guard does it, its literals marked. With `now` it is written at once: then roles are marked too.
pub(super) fn written<'a>(e: &Expr<'a>, now: bool) -> Expr<'a> {
    use BinOpKind::{Add, Concat, Mul, ScAnd, ScOr};
    let span = e.span();
    let each = |items: &[Expr<'a>]| items.iter().map(|item| written(item, now)).collect::<Vec<_>>();
    match e {
        Expr::Const(constant) if constant.value.as_str().is_some() => call(OWN, vec![expression(e)], span),
        Expr::Var(var) if now && var.id == "role" => call(ROLE, vec![expression(e)], span),
        Expr::GetAttr(attr) if now && attr.name == "role" => call(ROLE, vec![expression(e)], span),
        Expr::GetItem(item) if now && is_role(&item.subscript_expr) => call(ROLE, vec![expression(e)], span),
        Expr::GetItem(item) => {
            let expr = indexed(written(&item.expr, now), &item.subscript_expr);
            let subscript_expr = checked(&item.subscript_expr);
            Expr::GetItem(Spanned::new(GetItem { expr, subscript_expr }, span))
        }
        Expr::BinOp(b) if matches!(b.op, Add | Concat | Mul | ScAnd | ScOr) => {
            let (left, right) = (written(&b.left, now), written(&b.right, now));
            let with = |left, right| Expr::BinOp(Spanned::new(BinOp { op: b.op, left, right }, span));
            match b.op {
                Concat => with(call(TEXT, vec![left], span), call(TEXT, vec![right], span)),
                Add if !is_scalar(&b.left) && !is_scalar(&b.right) => listing(with(left, right), span),
                Mul => listing(with(left, right), span),
                _ => with(left, right),
            }
        }
        Expr::IfExpr(i) => {
            let test_expr = expression(&i.test_expr);
            let true_expr = written(&i.true_expr, now);
            let false_expr = i.false_expr.as_ref().map(|e| written(e, now));
            Expr::IfExpr(Spanned::new(IfExpr { test_expr, true_expr, false_expr }, span))
        }
        Expr::Filter(f) => {
            let given = matches!(f.name, "default" | "d");
            let args = if given { arguments(&f.args, now) } else { guard::plain_arguments(&f.args) };
            let expr = f.expr.as_ref().map(|e| written(e, now));
            Expr::Filter(Spanned::new(Filter { name: f.name, expr, args }, span))
        }
        Expr::Slice(s) => {
            let (start, stop, step) = (optional(&s.start), optional(&s.stop), optional(&s.step));
            let slice = Slice { expr: read(written(&s.expr, now)), start, stop, step };
            listing(Expr::Slice(Spanned::new(slice, span)), span)
        }
        Expr::List(list) => part_of(Expr::List(Spanned::new(List { items: each(&list.items) }, span)), span),
        Expr::Tuple(tuple) => part_of(Expr::Tuple(Spanned::new(Tuple { items: each(&tuple.items) }, span)), span),
        Expr::Map(map) => {
            let keys = map.keys.iter().map(checked).collect();
            part_of(Expr::Map(Spanned::new(Map { keys, values: each(&map.values) }, span)), span)
        }
        // A macro's, or a namespace's.
        Expr::Call(c) => match &c.expr {
            Expr::Var(var) if !matches!(var.id, "raise_exception" | "strftime_now" | "range") => {
                Expr::Call(Spanned::new(Call { expr: expression(&c.expr), args: arguments(&c.args, false) }, span))
            }
            _ => expression(e),
        },
        _ => expression(e),
    }
}

fn is_role(e: &Expr) -> bool {
    matches!(e, Expr::Const(name) if name.value.as_str() == Some("role"))
}

fn arguments<'a>(args: &[CallArg<'a>], now: bool) -> Vec<CallArg<'a>> {
    let measured = |e: &Expr<'a>| call(CHECK, vec![written(e, now)], e.span());
    let argument = |arg: &CallArg<'a>| match arg {
        CallArg::Pos(e) => CallArg::Pos(measured(e)),
        CallArg::Kwarg(name, e) => CallArg::Kwarg(name, measured(e)),
        CallArg::PosSplat(e) => CallArg::PosSplat(checked(e)),
        CallArg::KwargSplat(e) => CallArg::KwargSplat(checked(e)),
    };
    args.iter().map(argument).collect()
}
