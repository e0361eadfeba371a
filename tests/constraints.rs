//! Constraints from texts that nobody means well with, and what they take. A process of its own: for an allocator with a
//! ceiling, and for the panic hook.
#![cfg(feature = "constraints")]

use std::alloc::System;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use cap::Cap;
use layerline::{
    Constraint, ConstraintKind, ConstraintState, End, Generation, Logits, Model, Options, Sampler, Session,
};

/// What all of it may take, with a model of half a MiB. More ends the process.
const CEILING: usize = 192 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, usize::MAX);

const JSON: ConstraintKind = ConstraintKind::JsonSchema;
const GBNF: ConstraintKind = ConstraintKind::Gbnf;
const LARK: ConstraintKind = ConstraintKind::Lark;
const REGEX: ConstraintKind = ConstraintKind::Regex;

fn tiny_model() -> Arc<Model> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/golden/arch/llama.gguf");
    let options = Options { memory_budget: 64 << 20, context_length: 128, ..Options::default() };
    Model::open(&path, &options).unwrap()
}

/// Runs on a stack as small as is promised. The time only bounds a failure.
fn bounded(task: impl FnOnce() + Send + 'static) {
    let (done, finished) = std::sync::mpsc::channel();
    let body = move || {
        task();
        done.send(()).unwrap();
    };
    let thread = std::thread::Builder::new().stack_size(512 << 10).spawn(body).unwrap();
    finished.recv_timeout(Duration::from_secs(60)).expect("it takes too long, or has failed");
    thread.join().unwrap();
}

fn nested(open: &str, middle: &str, close: &str, depth: usize) -> String {
    open.repeat(depth) + middle + &close.repeat(depth)
}

/// A rule that calls the next one twice, and so on.
fn doubling(depth: usize) -> String {
    let rule = |i: usize| format!("r{i} ::= r{0} r{0}\n", i + 1);
    format!("root ::= r0\n{}r{depth} ::= \"a\"\n", (0..depth).map(rule).collect::<String>())
}

/// A rule that calls the one before it, and so on.
fn backwards(count: usize) -> String {
    let rule = |i: usize| format!("r{} ::= \"x\"? r{i}\n", i + 1);
    format!("r0 ::= \"a\"\n{}root ::= r{count}\n", (0..count).map(rule).collect::<String>())
}

fn list(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect::<Vec<_>>().join(",")
}

fn hostile_schemas() -> Vec<String> {
    let chain = |count| {
        let defs = list(count, |i| format!("\"d{i}\": {{\"$ref\": \"#/$defs/d{}\"}}", i + 1));
        format!("{{\"$ref\": \"#/$defs/d0\", \"$defs\": {{{defs}, \"d{count}\": {{\"type\": \"null\"}}}}}}")
    };
    let object = |name: &dyn Fn(usize) -> String| list(8, |i| format!("{{\"properties\": {{{}: {{}}}}}}", name(i)));
    let choices = |at: usize| format!("{{\"anyOf\": [{}]}}", object(&|i| format!("\"p{at}x{i}\"")));
    vec![
        nested("[", "", "]", 100_000),
        nested(r#"{"items":"#, "{}", "}", 60),
        nested(r#"{"items":"#, "{}", "}", 120),
        nested(r#"{"anyOf":[{"type":"integer"},"#, "{}", "]}", 60),
        nested(r#"{"allOf":[{"minimum":1},"#, "{}", "]}", 60),
        nested(r#"{"type":"object","properties":{"a":"#, "{}", "}}", 60),
        format!("{{\"enum\": [{}]}}", list(20_000, |i| format!("\"member {i}\""))),
        r##"{"$ref": "#"}"##.into(),
        r##"{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}}"##.into(),
        r##"{"allOf": [{"$ref": "#"}, {"$ref": "#"}]}"##.into(),
        r#"{"type": "string", "minLength": 1000000000}"#.into(),
        r#"{"type": "array", "minItems": 100000000}"#.into(),
        r#"{"type": "string", "pattern": "^(([a-z])+.)+[A-Z]([a-z])+$"}"#.into(),
        r#"{"type": "number", "multipleOf": 1e-300}"#.into(),
        r#"{"type": "integer", "minimum": -1e400, "maximum": 123456789012345678901234567890}"#.into(),
        String::new(),
        "\0".into(),
        "nothing".into(),
        "\u{feff}{}".into(),
        chain(480),
        chain(20_000),
        format!("{{\"allOf\": [{}]}}", list(14, choices)),
        format!("{{\"oneOf\": [{}]}}", list(2000, |i| format!("{{\"type\": \"object\", \"required\": [\"r{i}\"]}}"))),
        format!("{{\"anyOf\": [{}]}}", list(5000, |i| format!("{{\"const\": \"value {i}\"}}"))),
        format!("{{\"properties\": {{{}}}}}", list(10_000, |i| format!("\"p{i}\": {{\"type\": \"integer\"}}"))),
        format!("{{\"patternProperties\": {{{}}}}}", list(300, |i| format!("\"^(a|b)*a{{0,{i}}}$\": {{}}"))),
        r#"{"type": "string", "pattern": "^((a{0,1000}){0,1000}){0,1000}$"}"#.into(),
        r#"{"type": "string", "pattern": "^(x+x+)+y$"}"#.into(),
        r#"{"type": "string", "minLength": 60000, "maxLength": 60001}"#.into(),
        r#"{"type": "string", "pattern": "^(?=a)(?<!b)(c)\\1$"}"#.into(),
        r##"{"items": {"$ref": "#"}, "properties": {"a": {"$ref": "#"}}, "additionalProperties": {"$ref": "#"}}"##
            .into(),
        r##"{"$id": "x", "$ref": "x", "$dynamicRef": "#a", "$dynamicAnchor": "a"}"##.into(),
        r#"{"type": "array", "items": {"type": "array", "minItems": 1000, "maxItems": 1000}, "minItems": 1000}"#.into(),
        r#"{"type": "object", "minProperties": 100000}"#.into(),
        r#"{"enum": []}"#.into(),
        format!("{{\"const\": {}}}", nested("[", "1", "]", 90)),
        format!("{{\"const\": \"{}\"}}", "long".repeat(200_000)),
        "{\"title\": \"".to_string() + &"x".repeat(2 << 20) + "\"}",
    ]
}

fn hostile_grammars() -> Vec<(ConstraintKind, String)> {
    vec![
        (REGEX, "(a*)*b".repeat(50)),
        (REGEX, "(a|a?)+".repeat(200)),
        (REGEX, "[ab]*a[ab]{4000}".into()),
        (REGEX, "((((a{1000}){1000}){1000}){1000})".into()),
        (REGEX, nested("(", "a", ")", 100_000)),
        (REGEX, nested("(?:a|", "b", ")", 240)),
        (REGEX, "\\p{L}{1,9999}".into()),
        (GBNF, doubling(40)),
        (GBNF, doubling(950)),
        (GBNF, doubling(4000)),
        (GBNF, backwards(950)),
        (GBNF, "root ::= ".to_string() + &nested("(", "\"a\"", ")", 50_000)),
        (GBNF, "root ::= (((\"a\"{10000}){10000}){10000} root)?".into()),
        (GBNF, "root ::= root root | \"a\" | ".into()),
        (LARK, "start: start start | \"a\" | start? \"b\"?".into()),
        (LARK, "start: ".to_string() + &nested("(", "\"a\"", ")", 50_000)),
        (LARK, nested("start: %lark { start: ", "\"a\"", " }", 1000)),
        (LARK, "start: /a/{100000000}".into()),
        (LARK, "start: %json { \"a\": ".to_string() + &"[".repeat(10_000)),
        (REGEX, String::new()),
        (REGEX, "\0".into()),
        (REGEX, "((a{0,1000}){0,1000}){0,1000}".into()),
        (REGEX, "(a|b)*a(a|b){0,30}(c|d)*c(c|d){25}".into()),
        (REGEX, "(\\w{1,50}\\s?){1,50}".into()),
        (REGEX, "a".repeat(1 << 20)),
        (GBNF, String::new()),
        (GBNF, "root ::= \"\0\" [\0-\u{10ffff}]".into()),
        (GBNF, "root ::= root \"a\" | \"a\"".into()),
        (GBNF, "root ::= a\na ::= b \"x\"\nb ::= c\nc ::= a | b | \"y\"".into()),
        (GBNF, "root ::= a\na ::= a | a a | b\nb ::= b b | a | \"\"".into()),
        (GBNF, "root ::= ((\"a\"{0,1000}){0,1000}){0,1000}".into()),
        (GBNF, "root ::= ((x{0,1000}){0,1000}){0,1000}\nx ::= \"a\" x? \"b\"".into()),
        (GBNF, "root ::= ([a-z]? | [a-z]? [a-z]?){500}".into()),
        (GBNF, "root ::= \"a\"{99999999999999999999}".into()),
        (LARK, String::new()),
        (LARK, "\0".into()),
        (LARK, "start: a\na: a a | a | \"x\" |".into()),
        (LARK, "start: /(a|b)*a(a|b){20}/ \"x\"\n%ignore /(a|b)*b(a|b){20}/".into()),
        (LARK, "start: A\nA: /[a-z]*a[a-z]{15}/ & ~/[a-z]*b[a-z]{15}/ & /[a-z]*c[a-z]{14}/".into()),
        (LARK, "start: ~/a/ <[0-4000000000]> <[*]> <|nothing|>".into()),
        (LARK, "start: <[0-300]>{1000} /.*/".into()),
        (LARK, "start: x\nx[stop=\"b\", max_tokens=3]: /(.|\\n)*/\n".into()),
        (LARK, "start: x\nx[lazy]: /.*/ \"y\"{0,10000}\n".into()),
        (LARK, "%llguidance {\"no_forcing\": true, \"allow_invalid_utf8\": true}\nstart: \"a\"{100} /[\\xff]*/".into()),
        (LARK, "%import common.NOTHING\nstart: NOTHING".into()),
        (LARK, "start: %regex { \"substring_chars\": \"".to_string() + &"ab".repeat(20_000) + "\" }"),
        (LARK, "start: s::0x0\ns::_: \"a\" s::incr(_) | \"b\"".into()),
    ]
}

/// Makes a constraint and takes tokens, the first or the last that are allowed.
fn follow(model: &Arc<Model>, kind: ConstraintKind, text: &str, last: bool) -> bool {
    let Ok(mut constraint) = Constraint::new(model, kind, text) else { return false };
    for _ in 0..32 {
        let Ok(mask) = constraint.mask() else { break };
        let mut allowed = (0..mask.len() * 32).filter(|&token| mask[token / 32] >> (token % 32) & 1 == 1);
        let chosen = if last { allowed.next_back() } else { allowed.next() };
        let Some(token) = chosen else { break };
        let copy = constraint.copy();
        if constraint.accept(token as i32).is_err() || constraint.forced().is_err() || constraint.progress().is_err() {
            break;
        }
        drop(copy);
    }
    true
}

#[test]
fn hostile_texts_end_with_bounded_memory_on_a_small_stack() {
    let model = tiny_model();
    let texts = hostile_schemas().into_iter().map(|schema| (JSON, schema)).chain(hostile_grammars());
    // What is told comes after the model and its vocabulary.
    assert!(follow(&model, REGEX, "a+", false));
    ALLOCATOR.set_limit(ALLOCATOR.allocated() + CEILING).unwrap();
    for (kind, text) in texts {
        for last in [false, true] {
            let (model, text) = (model.clone(), text.clone());
            bounded(move || {
                let began = Instant::now();
                let runs = follow(&model, kind, &text, last);
                let short: String = text.chars().take(60).collect();
                println!("{:?}, {}: {kind:?} {short:?}", began.elapsed(), if runs { "runs" } else { "refused" });
            });
        }
    }
    ALLOCATOR.set_limit(usize::MAX).unwrap();
}

#[test]
fn the_hosts_panic_hook_stays() {
    static HEARD: AtomicUsize = AtomicUsize::new(0);
    // In a process of its own, as the hook is the process's.
    if std::env::var_os("LAYERLINE_TEST_HOOK").is_none() {
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "the_hosts_panic_hook_stays", "--test-threads=1", "--nocapture"])
            .env("LAYERLINE_TEST_HOOK", "1")
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        return;
    }
    let count = 1;
    let hook = Box::new(move |_: &std::panic::PanicHookInfo<'_>| {
        HEARD.fetch_add(count, Ordering::SeqCst);
    });
    let own: *const () = (&raw const *hook).cast();
    std::panic::set_hook(hook);
    let model = tiny_model();
    for (kind, text) in
        [(JSON, "{}"), (JSON, "{\"type\": 3}"), (REGEX, "(a"), (GBNF, "root ::= \"a\" root?"), (LARK, "x")]
    {
        follow(&model, kind, text, false);
    }
    let now: *const () = (&raw const *std::panic::take_hook()).cast();
    assert_eq!(now, own);
    assert_eq!(HEARD.load(Ordering::SeqCst), 0);
}

const SCHEMA: &str = r#"{"type": "object", "properties": {
    "customer name": {"type": "string", "maxLength": 16},
    "delivery address": {"type": "object", "properties": {
        "street": {"type": "string", "maxLength": 16}, "house number": {"type": "integer", "minimum": 1, "maximum": 200},
        "country": {"enum": ["Denmark", "Norway", "Sweden"]}},
        "required": ["street", "house number", "country"], "additionalProperties": false},
    "payment method": {"enum": ["credit card", "bank transfer", "cash on delivery"]},
    "express delivery": {"type": "boolean"}},
    "required": ["customer name", "delivery address", "payment method", "express delivery"],
    "additionalProperties": false}"#;

fn small_model() -> Option<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("models/SmolLM2-135M-Instruct.Q4_1.gguf");
    if !path.is_file() {
        // Past the harness, which keeps what passing tests print to itself, for `scripts/test.sh` to count.
        use std::io::Write;
        let _ = std::io::stderr().write_all(b"\nskipped: tokens that are forced (the model is not fetched)\n");
        return None;
    }
    Some(path)
}

/// Generates as a host does that samples itself: every token has a pass of its own.
fn by_hand(model: &Arc<Model>, constraint: &Constraint, sampler: &mut Sampler, prompt: &[i32]) -> Vec<i32> {
    let (mut constraint, mut session, mut tokens) = (constraint.copy(), Session::new(model, 0).unwrap(), Vec::new());
    sampler.accept(prompt).unwrap();
    session.forward(prompt, Logits::Last).unwrap();
    while constraint.progress().unwrap() != ConstraintState::Complete {
        let mask = constraint.mask().unwrap();
        let mut logits = session.logits(0).unwrap().to_vec();
        for (token, logit) in logits.iter_mut().enumerate() {
            if mask.get(token / 32).is_none_or(|word| word >> (token % 32) & 1 == 0) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let token = sampler.sample(&logits).unwrap();
        constraint.accept(token).unwrap();
        tokens.push(token);
        session.forward(&[token], Logits::Last).unwrap();
    }
    tokens
}

#[test]
fn what_is_forced_costs_few_passes_and_changes_no_token() {
    let Some(path) = small_model() else { return };
    let model = Model::open(&path, &Options { context_length: 256, ..Options::default() }).unwrap();
    let tokenizer = model.tokenizer().unwrap();
    let prompt = tokenizer.tokenize(b"A random order of a customer as JSON:\n", Default::default()).unwrap();
    let constraint = Constraint::new(&model, JSON, SCHEMA).unwrap();
    let (mut passes, mut tokens) = (0, 0);
    for seed in 0..3 {
        let sampler = || {
            let mut sampler = Sampler::new();
            sampler.set_temperature(seed as f32 * 0.4).unwrap();
            sampler.set_top_k(40);
            sampler.set_seed(seed);
            sampler
        };
        let mut generation = Generation::new();
        generation.set_constraint(Some(&constraint));
        let (mut seen, mut text) = (Vec::new(), String::new());
        let mut session = Session::new(&model, 0).unwrap();
        let on_token = |token: i32, piece: &str| {
            seen.push(token);
            text.push_str(piece);
            ControlFlow::Continue(())
        };
        generation.run(&mut session, tokenizer, &mut sampler(), &prompt, on_token).unwrap();
        assert_eq!(seen, by_hand(&model, &constraint, &mut sampler(), &prompt), "{seed}");
        let stats = generation.stats();
        assert_eq!((stats.end, stats.tokens), (End::Constraint, seen.len() as u64));
        (passes, tokens) = (passes + stats.passes, tokens + stats.tokens);
        // The text is what the tokens say.
        let mut spelt = Vec::new();
        seen.iter().for_each(|&token| tokenizer.piece(token, false, &mut spelt).unwrap());
        assert_eq!(text.as_bytes(), spelt);
        let value: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert!(value["delivery address"]["house number"].as_i64().is_some_and(|number| (1..=200).contains(&number)));
    }
    println!("{passes} passes for {tokens} tokens: {:.3}", passes as f64 / tokens as f64);
    assert!(passes * 10 < tokens * 7, "{passes} passes for {tokens} tokens");
}
