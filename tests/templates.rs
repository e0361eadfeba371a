//! Templates made to take long, much memory or a deep stack: every operation on long strings, long lists, deep nesting and
//! large numbers, once and in loops. Alone in its process, whose allocator counts.
//!
//! LAYERLINE_HOSTILE_TEMPLATES=1 tries all of them, which takes minutes; otherwise every so manieth is tried.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use layerline::gguf::Metadata;
use layerline::{Chat, Conversation, Error, Status, Tokenizer};

/// What is allocated, and the most of it since it was last asked for.
struct Counting {
    held: AtomicUsize,
    peak: AtomicUsize,
}

#[global_allocator]
static ALLOCATOR: Counting = Counting { held: AtomicUsize::new(0), peak: AtomicUsize::new(0) };

// SAFETY: every call goes on to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let held = self.held.fetch_add(layout.size(), Relaxed) + layout.size();
        self.peak.fetch_max(held, Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        self.held.fetch_sub(layout.size(), Relaxed);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

/// What the header promises.
const STACK: usize = 512 << 10;
const MEMORY: usize = 128 << 20;
/// Processor time in seconds. The header promises one on a machine of today; tests run on others, and unoptimised parts.
const SECONDS: f64 = 4.0;

/// Processor time of this thread in seconds, which other work on the machine does not add to.
fn now() -> f64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the struct lives for the call.
    unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Values that invite trouble, as template code that sets `x`.
const VALUES: &[(&str, &str)] = &[
    ("long string", "{% set x = 'ab c' * 2000000 %}"),
    ("short string", "{% set x = 'ab c' * 3000 %}"),
    ("string of wide characters", "{% set x = '\u{e9}\u{3a3}' * 2000000 %}"),
    ("string of control characters", "{% set x = '\u{1}\u{1}' * 1000000 %}"),
    ("string of lines", "{% set x = '\n' * 1000000 %}"),
    ("string of fields", "{% set x = '%s{}' * 3000 %}"),
    ("long list", "{% set x = range(90000) | list %}"),
    ("list of lists", "{% set x = [range(90000) | list] * 100000 %}"),
    ("list of strings", "{% set x = ['ab c' * 100000] * 100000 %}"),
    ("list of equal strings", "{% set x = (('a' * 999 ~ ' ') * 300).split(' ') %}"),
    ("list of texts", "{% set x = ('ab ' * 100000).split(' ') %}"),
    ("list of maps", "{% set x = [{'a': {'b': 'c' * 100000}}] * 50000 %}"),
    (
        "deep list",
        "{% set ns = namespace(x=[]) %}{% for i in range(150) %}{% set ns.x = [ns.x] %}{% endfor %}{% set x = ns.x %}",
    ),
    (
        "doubled list",
        "{% set ns = namespace(x=['a']) %}{% for i in range(16) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{% set x = ns.x %}",
    ),
    ("map", "{% set x = {'a': 'b' * 3000000, 'b': range(9000) | list, 1: 2} %}"),
    ("large number", "{% set x = 170141183460469231731687303715884105727 %}"),
    ("negative number", "{% set x = -9223372036854775807 %}"),
    ("float", "{% set x = 1e308 %}"),
];

/// Expressions over `x`, which end in an error where they do not go with its type.
fn expressions() -> Vec<String> {
    let numbers = ["0", "1", "-1", "3", "999", "100000", "999999999", "-999999999", "9223372036854775807"];
    let mut all: Vec<String> = [
        "x",
        "x ~ x",
        "x + x",
        "x * x",
        "x - x",
        "x / x",
        "x // x",
        "x % x",
        "x ** x",
        "-x",
        "not x",
        "x == x",
        "x ~ '' == x ~ ''",
        "x != x",
        "x < x",
        "x in x",
        "x in [x]",
        "[x] == [x]",
        "x[::-1]",
        "x[::-7]",
        "x[::2]",
        "x[1:]",
        "x[1:][1:][1:]",
        "x[:-1]",
        "x[-3:]",
        "x[-1]",
        "x[0]",
        "x['a']",
        "x.a",
        "[x, x]",
        "(x, x)",
        "{'a': x}",
        "{x: x}",
        "'%s' % x",
        "'%s%s%s' % (x, x, x)",
        "'%999s' % x",
        "x % (x, x)",
        "x % 'a'",
        "('%s' * 9000) % (x, x)",
        "x if x else x",
        "x and x",
        "x or x",
        "range(x)",
        "range(90000)[89999:]",
        "range(90000) | list",
        "dict(x)",
        "dict(a=x, b=x)",
        "namespace(a=x)",
        "'{}'.format(x)",
        "('{0}' * 9000).format(x)",
        "'{0:>999}{0:<999}'.format(x)",
        "x.format(x)",
        "x.format(x, x, x, x)",
        "'{:>{}}'.format(x, 99999999)",
        "x | map('upper') | list",
        "x | map('slice', 100000)",
        "x | map('slice', 999999999)",
        "x | map('batch', 1)",
        "x | map('replace', 'a', x ~ '')",
        "x | map('join', x ~ '')",
        "x | map('indent', 99999999)",
        "x | map('format', x)",
        "x | map('list')",
        "x | map('map', 'upper')",
        "x | map('string')",
        "x | map('tojson')",
        "x | map(attribute='a.b')",
        "x | map(attribute=x ~ '.a' * 10000)",
        "x | map(' map', 'upper')",
        "x | map('sort')",
        "x | map('trim', x ~ '')",
        "x | map('center', 9999999)",
        "x | map('reverse')",
        "x | map('zip', x)",
        "x | select('in', x)",
        "x | select('==', x)",
        "x | reject('in', x)",
        "x | selectattr('a', 'in', x)",
        "x | rejectattr('a.b')",
        "x | select('string')",
        "x | select('startingwith', x)",
        "x | selectattr(x ~ '')",
        "x | tojson(separators=(x ~ '', x ~ ''))",
        "x | tojson(separators=(',' * 100000, ':' * 100000))",
        "x | tojson(indent=x)",
        "x | tojson(sort_keys=true)",
        "x | tojson(ensure_ascii=true)",
        "x | join(x ~ '')",
        "x | join('a' * 100000)",
        "x | join(attribute='a' * 100000)",
        "'a' | join(x)",
        "x | replace('a', x ~ '')",
        "x | replace('', x ~ '')",
        "x | replace('', 'a' * 1000)",
        "x | replace(x, x)",
        "'a' | replace('a', x)",
        "x | split('')",
        "x | split('b')",
        "x | split",
        "x | lines",
        "x | format(x, x)",
        "'%s' | format(x)",
        "x | trim(x ~ '')",
        "x | default(x)",
        "x | sum(start='')",
        "x | sum(start=[])",
        "x | sum(start=x)",
        "x | sum(attribute='a')",
        "x | groupby('a')",
        "x | groupby('a.b' * 10000)",
        "x | sort(attribute='a,b,c')",
        "x | sort(attribute='a' ~ ',a' * 100000)",
        "x | unique(attribute='a.b')",
        "x | chain(x)",
        "x | chain(x, x) | chain(x) | list",
        "x | zip(x)",
        "x | zip(x, x) | list",
        "x | items | list",
        "x | dictsort",
        "x | dictsort(by='value')",
        "x | attr(0)",
        "x | attr(-1)",
        "x | int(base=36)",
        "x | round(9999)",
        "x | round(-9999)",
        "x | round(2, 'floor')",
        "x is in x",
        "x is in [x, x]",
        "x is sameas x",
        "x is startingwith x",
        "x is endingwith x",
        "x is lower",
        "x is upper",
        "x is sequence",
        "x is iterable",
        "x is divisibleby 3",
        "x.replace('', 'a' * 1000)",
        "x.replace('a', x)",
        "x.replace('a', 'b' * 100000)",
        "x.split('')",
        "x.split('b')",
        "x.split()",
        "x.rsplit('b')",
        "x.splitlines()",
        "x.join(x)",
        "x.join(['a'] * 90000)",
        "''.join(x)",
        "'a'.join(x)",
        "x.strip(x)",
        "x.lstrip('ab c' * 10000)",
        "x.rstrip('z')",
        "x.title()",
        "x.capitalize()",
        "x.upper()",
        "x.lower()",
        "x.count('')",
        "x.count(x)",
        "x.count('b')",
        "x.find('zz')",
        "x.rfind('zz')",
        "x.startswith(x)",
        "x.startswith([x, x])",
        "x.endswith((x, x))",
        "x.isalnum()",
        "x.removeprefix('ab')",
        "x.keys() | list",
        "x.values() | list",
        "x.items() | list",
        "x.get(x)",
        "x.get('a', x)",
        "x.index(x)",
        "x.append(x)",
        "loop.cycle(x, x)",
        "loop.changed(x)",
        "strftime_now(x)",
        "raise_exception(x)",
        "debug()",
        "x | debug",
        "messages | map(attribute=x)",
        "x | list | list",
        "x | list | reverse | list",
        "x | reverse | first",
        "x | list | last",
        "x | string | length",
        "x | string | list | join",
        "x | unique | list | length",
    ]
    .into_iter()
    .map(String::from)
    .collect();
    for filter in [
        "abs",
        "bool",
        "capitalize",
        "count",
        "e",
        "escape",
        "first",
        "float",
        "int",
        "items",
        "join",
        "last",
        "length",
        "lines",
        "list",
        "lower",
        "max",
        "min",
        "pprint",
        "reverse",
        "round",
        "safe",
        "sort",
        "string",
        "sum",
        "title",
        "tojson",
        "trim",
        "unique",
        "upper",
        "urlencode",
        "xmlattr",
        "wordcount",
        "wordwrap",
        "random",
    ] {
        all.push(format!("x | {filter}"));
    }
    for number in numbers {
        for expression in [
            "x[N:]",
            "x[:N]",
            "x[::N]",
            "x[N::-1]",
            "x[N]",
            "x * N",
            "N * x",
            "x ~ N",
            "x | slice(N)",
            "x | batch(N)",
            "x | batch(N, x)",
            "x | slice(N, x)",
            "x | indent(N)",
            "x | indent(N, true, true)",
            "x | indent(width=N)",
            "x | tojson(indent=N)",
            "x | round(N)",
            "x | int(default=N)",
            "x | replace('a', 'b', N)",
            "x.split('a', N)",
            "x.replace('a', 'bb', N)",
            "'%' ~ N ~ 's' % x",
            "('%.' ~ N ~ 'f') % x",
            "('{:' ~ N ~ '}').format(x)",
            "range(0, N)",
            "range(N, 0, -1)",
            "x ** N",
            "x % N",
            "x | center(N)",
            "x.center(N)",
            "x.ljust(N)",
            "x.zfill(N)",
            "x | truncate(N)",
            "x.expandtabs(N)",
        ] {
            all.push(expression.replace('N', number));
        }
    }
    all
}

/// Statements around an expression.
const FORMS: &[&str] = &[
    "{{ E }}",
    "{% set y = E %}{{ y }}",
    "{% for i in range(90000) %}{% for j in range(90000) %}{% set y = E %}{% endfor %}{% endfor %}",
    "{% for i in range(90000) %}{% if E %}{% endif %}{% endfor %}",
    "{% for i in range(90000) %}{% for y in E %}{% break %}{% endfor %}{% endfor %}",
    "{% set ns = namespace(x=x) %}{% for i in range(90000) %}{% set x = ns.x %}{% set ns.x = E %}{% endfor %}{{ ns.x }}",
    "{% macro f(y) %}{{ E }}{% endmacro %}{% for i in range(90000) %}{{ f(E) }}{% endfor %}",
    "{% for i in range(90000) %}{% set y %}{{ E }}{% endset %}{% endfor %}",
];

fn render(template: &str) -> Result<String, Error> {
    let metadata = Metadata { entries: vec![("tokenizer.chat_template".into(), template.into())] };
    let tokenizer: Result<Tokenizer, Error> = Err(Error::unsupported("no tokenizer"));
    Chat::new(&metadata, &tokenizer).format(&Conversation::new([("user", "hi")], true))
}

/// Renders within the bounds, or says which one was passed.
fn tried(name: &str, template: &str, worst: &mut (f64, usize)) -> Option<String> {
    let before = ALLOCATOR.held.load(Relaxed);
    ALLOCATOR.peak.store(before, Relaxed);
    let start = now();
    let result = render(template);
    let seconds = now() - start;
    let memory = ALLOCATOR.peak.load(Relaxed) - before;
    *worst = (worst.0.max(seconds), worst.1.max(memory));
    if std::env::var("LAYERLINE_SHOW_TEMPLATES").is_ok_and(|least| seconds > least.parse().unwrap()) {
        println!("{seconds:.2} s, {} MiB: {name}: {:?}", memory >> 20, result.as_ref().map(String::len));
    }
    let known = |e: &Error| matches!(e.status(), Status::Format | Status::InvalidArgument | Status::Unsupported);
    if let Err(e) = &result
        && !known(e)
    {
        return Some(format!("{name}: {e}"));
    }
    let within = seconds < SECONDS && memory < MEMORY;
    (!within).then(|| format!("{name}: {seconds:.2} s, {} MiB", memory >> 20))
}

/// Templates that nest one construct as deep as they can, and a little deeper.
fn nested() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for depth in [20, 60, 100, 140, 160, 240, 330, 490, 800, 3_000, 60_000] {
        let mut add = |name: &str, template: String| all.push((format!("{depth} levels of {name}"), template));
        let chain = |start: &str, part: &str| format!("{{{{ {start}{} }}}}", part.repeat(depth));
        let around = |open: &str, close: &str| format!("{{{{ {}1{} }}}}", open.repeat(depth), close.repeat(depth));
        add("sums", chain("1", "+x"));
        add("joins", chain("1", "~x"));
        add("products", chain("x", "*1"));
        add("powers", chain("1", "**1"));
        add("and", chain("x", " and x"));
        add("comparisons", chain("1", "<x"));
        add("filters", chain("x", "|string"));
        add("filters with arguments", chain("x", "|default(x)"));
        add("tests", chain("x", " is string"));
        add("attributes", chain("x", ".a"));
        add("indices", chain("x", "[0]"));
        add("slices", chain("'abc'", "[1:]"));
        add("slices of a list", chain("messages", "[0:]"));
        add("calls", chain("x", "()"));
        add("methods", chain("'a'", ".upper()"));
        add("choices", chain("x", " if x else x"));
        add("not", chain("", "not "));
        add("minus", chain("", "-") + "1");
        add("parentheses", around("(", ")"));
        add("lists", around("[", "]"));
        add("tuples", around("(", ",)"));
        add("maps", around("{'a':", "}"));
        add("arguments", around("f(", ")"));
        add("ifs", format!("{}{}", "{% if x %}".repeat(depth), "{% endif %}".repeat(depth)));
        add("elifs", format!("{{% if x %}}{}{{% endif %}}", "{% elif x %}".repeat(depth)));
        add("loops", format!("{}{}", "{% for x in [1] %}".repeat(depth), "{% endfor %}".repeat(depth)));
        add("withs", format!("{}{}", "{% with y = 1 %}".repeat(depth), "{% endwith %}".repeat(depth)));
        add("captures", format!("{}{}", "{% set y %}".repeat(depth), "{% endset %}".repeat(depth)));
        add("filter blocks", format!("{}{}", "{% filter upper %}".repeat(depth), "{% endfilter %}".repeat(depth)));
        add("macros", format!("{}{}", "{% macro m() %}".repeat(depth), "{% endmacro %}".repeat(depth)));
        add("values", format!("{{% set x = 1 %}}{}{{{{ x }}}}", "{% set x = [x] %}".repeat(depth.min(9_000))));
        add(
            "maps of values",
            format!("{{% set x = 1 %}}{}{{{{ x|tojson }}}}", "{% set x = {'a': x} %}".repeat(depth.min(9_000))),
        );
        let grown = |step: &str, end: &str| {
            format!(
                "{{% set ns = namespace(x=range(9)) %}}{{% for i in range({depth}) %}}{{% set ns.x = {step} %}}{{% endfor %}}{end}"
            )
        };
        for end in ["{{ ns.x }}", "{{ ns.x | list }}", "{% for y in ns.x %}{{ y }}{% endfor %}", "{{ ns.x[0] }}"] {
            for step in [
                "ns.x[1:]",
                "ns.x[0:]",
                "ns.x[::-1]",
                "ns.x | reverse",
                "ns.x + [1]",
                "[1] + ns.x",
                "ns.x | chain([1])",
                "ns.x | zip([1])",
                "ns.x * 1",
                "ns.x | map('string')",
                "ns.x | list",
                "(ns.x,)",
                "{'a': ns.x}.items()",
                "{'a': ns.x}.values()",
                "ns.x | batch(2)",
                "dict(a=ns.x)",
                "{'a': 1} | chain({'b': ns.x})",
                "[ns.x] | groupby('a')",
            ] {
                add(step, grown(step, end));
            }
        }
        add(
            "macro calls",
            "{% macro m(n) %}{% for x in [1] %}{{ m(n + 1) }}{% endfor %}{% endmacro %}{{ m(0) }}".into(),
        );
        add("loop calls", "{% for x in [1] recursive %}{{ loop([1]) }}{% endfor %}".into());
        add("callers", "{% macro m() %}{% call m() %}{{ caller() }}{% endcall %}{% endmacro %}{{ m() }}".into());
    }
    // Looking a name up takes as long as there are scopes.
    for depth in [40, 140] {
        let scopes = "{% with y = 1 %}".repeat(depth);
        let look =
            "{% for i in range(90000) %}{% for j in range(90000) %}{% if nothing %}{% endif %}{% endfor %}{% endfor %}";
        all.push((format!("a name {depth} scopes up"), format!("{scopes}{look}{}", "{% endwith %}".repeat(depth))));
    }
    let recursive = "{% macro m(n) %}{% if n %}{{ m(n - 1) }}{% else %}{% for i in range(90000) %}{% for j in range(90000) %}\
                     {% if nothing %}{% endif %}{% endfor %}{% endfor %}{% endif %}{% endmacro %}";
    all.push(("a name in a deep macro".into(), format!("{recursive}{{{{ m(40) }}}}")));
    all.push((
        "a name in a deep loop".into(),
        "{% for x in [90] recursive %}{% if x %}{{ loop([x - 1]) }}{% else %}{% for i in range(90000) %}\
         {% for j in range(90000) %}{% if nothing %}{% endif %}{% endfor %}{% endfor %}{% endif %}{% endfor %}"
            .into(),
    ));
    all
}

#[test]
fn no_template_goes_beyond_the_bounds_of_time_memory_and_stack() {
    let all = std::env::var("LAYERLINE_HOSTILE_TEMPLATES").is_ok();
    let check = move || {
        let (mut failures, mut worst, mut count) = (Vec::new(), (0.0, 0), 0);
        for (name, template) in nested() {
            count += 1;
            failures.extend(tried(&name, &template, &mut worst));
        }
        let expressions = expressions();
        let mut number = 0;
        for (value, set) in VALUES {
            for expression in &expressions {
                for form in FORMS {
                    // A prime, so that every value, expression and form has its turn.
                    number += 1;
                    if all || number % 211 == 0 {
                        count += 1;
                        let template = format!("{set}{}", form.replace('E', expression));
                        failures.extend(tried(&format!("{value}, {form}, {expression}"), &template, &mut worst));
                    }
                }
            }
        }
        println!("{count} templates: at most {:.2} s and {} MiB", worst.0, worst.1 >> 20);
        assert!(failures.is_empty(), "{}", failures.join("\n"));
        assert!(count > 800);
    };
    std::thread::Builder::new().stack_size(STACK).spawn(check).unwrap().join().unwrap();
}
