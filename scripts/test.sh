#!/usr/bin/env bash
# Every test there is, step by step. What cannot run here is named at the end, with the reason.
#
#   LAYERLINE_REQUIRE_ALL=1   a skipped step is a failure
#   LAYERLINE_PLATFORMS=1     the other systems too (`make test-platforms`, without the library's own tests there), beside most
#                             of this, as far as that leaves processors idle
#   CARGO, CC, GO, PYTHON, MAKE   the programs to use
set -u
cd "$(dirname "$0")/.."
root=$PWD
CARGO=${CARGO:-cargo}
export GO=${GO:-go}
PYTHON=${PYTHON:-python3}
MAKE=${MAKE:-make}
target=${CARGO_TARGET_DIR:-target}
case "$target" in /*) ;; *) target=$root/$target ;; esac
build=$target/ctests
jobs=$(getconf _NPROCESSORS_ONLN 2> /dev/null || echo 2)
system=$(uname -s)
. scripts/times.sh

passed=0
failed=0
times=()
skips=()
left_out=()
failures=()

# step NAME COMMAND...: ends with 0 (passed), 77 (skipped; the reason is in $reason_file) or else (failed).
reason_file=$(mktemp)
trap 'rm -rf "$reason_file"' EXIT
step() {
    local name=$1 status start=$SECONDS before took
    shift
    processor_seconds
    before=$processor_seconds
    echo
    echo "== $name"
    : > "$reason_file"
    "$@"
    status=$?
    processor_seconds
    took=$((processor_seconds - before))
    case $status in
        0)
            passed=$((passed + 1))
            echo "-- $name: passed ($((SECONDS - start)) s, of the processors $took)"
            ;;
        77)
            skips+=("$name ($(cat "$reason_file"))")
            echo "-- $name: skipped"
            ;;
        *)
            failed=$((failed + 1))
            failures+=("$name")
            echo "-- $name: FAILED ($status)"
            ;;
    esac
    times+=("$((SECONDS - start)) $took $name")
    return $status
}
skip() {
    echo "$1" > "$reason_file"
    return 77
}
have() { command -v "$1" > /dev/null 2>&1; }

# -- tools ---------------------------------------------------------------------------------------------------------

# On Debian as root what is missing is installed; anywhere else it is left as it is.
may_install() { [ "$(id -u)" = 0 ] && have apt-get; }
install_tools() {
    local wanted=()
    have cmake || wanted+=(cmake)
    have valgrind || wanted+=(valgrind)
    have g++ || have c++ || wanted+=(g++)
    have nm || wanted+=(binutils)
    have abidiff || [ "$system" != Linux ] || wanted+=(abigail-tools)
    have doxygen || wanted+=(doxygen)
    have pkg-config || wanted+=(pkg-config)
    # For the event loops of docs/embedding.md, which can be tested without them but for those two.
    have pkg-config && pkg-config --exists glib-2.0 || wanted+=(libglib2.0-dev)
    have pkg-config && pkg-config --exists libuv || wanted+=(libuv1-dev)
    have_cargo_c || wanted+=(libssl-dev)
    have "$GO" || wanted+=(golang-go)
    [ ${#wanted[@]} -gt 0 ] || return 0
    if may_install; then
        echo "installing ${wanted[*]}"
        { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${wanted[@]}"; } \
            > "$target/apt.log" 2>&1 || echo "apt-get failed; see $target/apt.log"
    fi
    if ! have cmake && "$PYTHON" -m venv "$target/tools" > /dev/null 2>&1 &&
        "$target/tools/bin/pip" install --quiet --disable-pip-version-check "cmake<4" > /dev/null 2>&1; then
        PATH="$target/tools/bin:$PATH"
    fi
    return 0
}
# The machine's own, or the one in the root that .ci/run has made.
have_cargo_c() {
    "$CARGO" cinstall --version > /dev/null 2>&1 ||
        { [ -x "$target/swift-root/usr/bin/cargo-cinstall" ] && export CARGO_C_ROOT=$target/swift-root; }
}
# A build of minutes, so only where it is missing; unoptimised, which is fast enough for what it does here. Where the
# newest one needs a newer compiler, cargo says which one does not.
install_cargo_c() {
    local log=$target/cargo-c.log version
    ! have_cargo_c && may_install || return 0
    echo "installing cargo-c"
    "$CARGO" install cargo-c --locked --debug > "$log" 2>&1 || {
        version=$(sed -n 's/.*`cargo-c \([^`]*\)` supports rustc.*/\1/p' "$log" | tail -1)
        [ -n "$version" ] && "$CARGO" install cargo-c --locked --debug --version "$version" > "$log" 2>&1
    } || echo "cargo install failed; see $log"
}
why_missing() {
    if [ "$(id -u)" != 0 ]; then echo "not installed, not root"; else echo "not installed, and could not be"; fi
}

# -- steps ---------------------------------------------------------------------------------------------------------

fetch_model() { "$PYTHON" scripts/fetch_model.py --model "$1"; }
# cargo_test NAME ARGUMENT...: a test that cannot run says so in a line "skipped: ..." and counts as passed for cargo.
cargo_test() {
    local log=$target/$1.log part status
    shift
    (set -o pipefail && "$CARGO" test --profile tests --no-fail-fast "$@" 2>&1 | tee "$log")
    status=$?
    while read -r part; do
        skips+=("$part${*:+, $*}")
    done < <(sed -n 's/^skipped: //p' "$log")
    return "$status"
}
rust_tests() { cargo_test rust-tests; }
# The library's own; that all models have the same bits is the next step. The others test what no feature changes. The last
# that cargo builds, as it compiles the library anew at each change from one set of features to another. The header comes out
# as it is, or a test before has failed.
rust_tests_without_prefetch() {
    cargo_test rust-tests-without-prefetch --no-default-features --features generate-header --lib --test stress --test threads
}

# The tiny models, whose weights are drawn again.
golden_models() { "$CARGO" run --profile tests --quiet --example golden -- "$target/golden"; }

# The same logits with and without the feature, byte by byte; the program with it is there from the steps before.
same_bits_without_prefetch() {
    local logits=$target/tests/examples/logits out=$target/logits
    local models=("$target"/golden/arch/*.gguf "$target"/golden/quant/*.gguf)
    [ ! -f "$small_model" ] || models+=("$small_model")
    "$logits" "$out-default" "${models[@]}" &&
        "$CARGO" build --profile tests --quiet --no-default-features --features generate-header --example logits &&
        "$logits" "$out-without-prefetch" "${models[@]}" && cmp "$out-default" "$out-without-prefetch"
}

# The same logits with every instruction set of this processor, byte by byte.
same_bits_by_every_instruction_set() {
    local logits=$target/tests/examples/logits out=$target/logits name names
    local models=("$target"/golden/{quant,quant2,arch,arch2,family,long,peer}/*.gguf)
    "$CARGO" build --profile tests --quiet --example logits && names=$("$logits" --instructions) || return 1
    for name in $names; do
        "$logits" --instructions "$name" "$out-$name" "${models[@]}" && cmp "$out-scalar" "$out-$name" || return 1
    done
}
libraries() { "$MAKE" --no-print-directory lib; }

shared_library() {
    if [ "$system" = Darwin ]; then echo "$target/release/liblayerline.dylib"; else echo "$target/release/liblayerline.so"; fi
}

library_is_small() {
    have strip || { skip "strip is $(why_missing)"; return; }
    scripts/size.sh "$(shared_library)"
}

symbols_are_listed() {
    local others
    have nm || { skip "nm is $(why_missing)"; return; }
    others=$(scripts/symbols.sh "$(shared_library)" | grep -v '^layerline_')
    if [ -n "$others" ]; then
        echo "exported, but not layerline_*:"
        echo "$others"
        return 1
    fi
    if ! diff -u include/symbols.txt <(scripts/symbols.sh "$(shared_library)"); then
        echo "include/symbols.txt differs from the library: if that is meant, run \`make symbols\` and commit it"
        return 1
    fi
    # And whatever is exported is declared.
    diff -u <(grep -oE '\blayerline_[a-z0-9_]+\(' include/layerline.h | tr -d '(' | LC_ALL=C sort -u |
        LC_ALL=C comm -12 - include/symbols.txt) include/symbols.txt
}

interface_keeps_its_promise() {
    have abidiff || { skip "abidiff is $(why_missing)"; return; }
    CC=${CC:-cc} scripts/abi.sh "$1"
}

soname_is_set() {
    if [ "$system" = Darwin ]; then
        otool -D "$(shared_library)" | grep -qx '@rpath/liblayerline.0.dylib'
    else
        have readelf || { skip "readelf is $(why_missing)"; return; }
        readelf -d "$(shared_library)" | grep -q 'SONAME.*\[liblayerline\.so\.0\]'
    fi
}

# The system libraries that a static Rust library needs, in rustc's own words; no dependency of this one adds any.
native_libs() {
    echo 'pub fn nothing() {}' |
        "${RUSTC:-rustc}" --crate-type staticlib --print native-static-libs -o "$target/native-libs-probe.a" - 2>&1 |
        sed -n 's/.*native-static-libs: //p' | tail -1
}

c_suite() {
    local folder=$1
    shift
    have cmake || { skip "cmake is $(why_missing)"; return; }
    have g++ || have c++ || { skip "a C++ compiler is $(why_missing)"; return; }
    cmake -S ctests -B "$folder" -DLAYERLINE_LIB_DIR="$target/release" -DLAYERLINE_NATIVE_LIBS="$native" -DLAYERLINE_TEST_DATA="$target/golden" "$@" > "$folder.log" 2>&1 &&
        cmake --build "$folder" -j "$jobs" >> "$folder.log" 2>&1 || { tail -40 "$folder.log"; return 1; }
    local part status
    (set -o pipefail && cd "$folder" && ctest -j "$jobs" --output-on-failure --no-tests=error | tee "$folder.log")
    status=$?
    # A part that CTest skipped is a skipped thing here too.
    while read -r part; do
        skips+=("$part of ${folder##*/} (the model is not fetched)")
    done < <(sed -n 's/^[[:space:]]*[0-9]* - \([a-z_]*\) (Skipped)$/\1/p' "$folder.log")
    return "$status"
}

c_suite_plain() { c_suite "$build"; }

c_suite_sanitized() {
    if ! echo 'int main(void) { return 0; }' | "${CC:-cc}" -fsanitize=address,undefined -x c - -o "$target/sanitizer-probe" 2> /dev/null ||
        ! "$target/sanitizer-probe"; then
        skip "the C compiler has no AddressSanitizer"
        return
    fi
    ASAN_OPTIONS=detect_leaks=1 c_suite "$build-sanitized" -DLAYERLINE_SANITIZE=ON
}

c_suite_valgrind() {
    have valgrind || { skip "valgrind is $(why_missing)"; return; }
    c_suite "$build-valgrind" -DLAYERLINE_VALGRIND=ON
}

python_tests() {
    LAYERLINE_LIBRARY=$(shared_library) PYTHONDONTWRITEBYTECODE=1 "$PYTHON" -W error -m unittest discover bindings/python
}
# Some of a hundred schemas, with two models; what comes of it is checked by a validator that has nothing to do with us.
schemas_are_followed() {
    local tools=$target/schema-tools models=() file
    for file in "$small_model" "$root/models/gemma-3-270m-Q4_K_M.gguf"; do
        [ -f "$file" ] && models+=("$file")
    done
    [ ${#models[@]} -gt 0 ] || { skip "there is no model"; return; }
    [ -x "$tools/ready" ] || {
        "$PYTHON" -m venv "$tools" && "$tools/bin/pip" install --quiet --disable-pip-version-check jsonschema &&
            install -m 755 /dev/null "$tools/ready"
    } > "$target/pip.log" 2>&1 || { skip "jsonschema is not installed, and could not be; see $target/pip.log"; return; }
    LAYERLINE_LIBRARY=$(shared_library) PYTHONDONTWRITEBYTECODE=1 "$tools/bin/python" scripts/constraints.py "${models[@]}"
}
python_types() {
    local tools=$target/tools
    [ -x "$tools/bin/mypy" ] || { "$PYTHON" -m venv "$tools" && "$tools/bin/pip" install --quiet --disable-pip-version-check mypy; } \
        > "$target/pip.log" 2>&1 || { skip "mypy is not installed, and could not be; see $target/pip.log"; return; }
    (cd bindings/python && "$tools/bin/mypy" --cache-dir="$target/mypy" layerline.py test_layerline.py test_source.py)
}

# On random text, as much as takes a minute; scripts/compare_tokenizers.py does it at any length.
tokenizers_agree() {
    local tools=$target/tokenizer-tools vocabularies=() file out
    [ -x "$tools/ready" ] || {
        "$PYTHON" -m venv "$tools" &&
            "$tools/bin/pip" install --quiet --disable-pip-version-check tokenizers sentencepiece protobuf gguf &&
            install -m 755 /dev/null "$tools/ready"
    } > "$target/pip.log" 2>&1 || { skip "the packages to compare with are not installed, and could not be; see $target/pip.log"; return; }
    "$CARGO" build --profile tests --quiet --example tokenize || return 1
    mkdir -p "$target/vocabularies"
    for file in tests/data/vocab/*.gguf.gz; do
        out=$target/vocabularies/$(basename "$file" .gz)
        gzip -dc "$file" > "$out" || return 1
        vocabularies+=("$out")
    done
    "$tools/bin/python" scripts/compare_tokenizers.py "$target/tests/examples/tokenize" words --characters 12000 &&
        "$tools/bin/python" scripts/compare_tokenizers.py "$target/tests/examples/tokenize" ids "${vocabularies[@]}" --characters 30000
}

# Recurrent layers and per-layer inputs beside numpy in float64; with the packages of the step above.
float64_agrees() {
    local tools=$target/tokenizer-tools
    [ -x "$tools/ready" ] || { skip "the packages to compare with are not installed"; return; }
    "$CARGO" build --profile tests --quiet --example logits &&
        "$tools/bin/python" scripts/float64_reference.py --program "$target/tests/examples/logits" \
            "$target"/golden/arch2/qwen35{,-mtp}.gguf "$target"/golden/{arch2,family}/mamba2.gguf \
            "$target"/golden/family/qwen35.gguf "$target"/golden/peer/gemma4.gguf
}

go_binding() {
    have "$GO" || { skip "$GO is $(why_missing)"; return; }
    scripts/test_go.sh "$@"
}
# The one on the PATH, or the one that .ci/run has made.
have_swift() {
    have swift || [ ! -f "$target/swift-root/.complete" ] || export SWIFT_ROOT=$target/swift-root
    have swift || [ -n "${SWIFT_ROOT:-}" ]
}
swift_binding() {
    have_swift || { skip "swift is not installed; scripts/swift_root.sh makes a root that has it"; return; }
    scripts/test_swift.sh "$1" "$target/prefix" "$target/swift"
}

reference() {
    have doxygen || { skip "doxygen is $(why_missing)"; return; }
    "$MAKE" --no-print-directory docs
}
documented_program() {
    scripts/test_docs.sh "$1" "$target/release" "$target/docs-programs" | tee "$reason_file"
    return "${PIPESTATUS[0]}"
}

installs() { scripts/test_install.sh make "$target/prefix" "$target/release"; }
installs_by_cargo_c() {
    install_cargo_c
    have_cargo_c || { skip "cargo-c is $(why_missing)"; return; }
    scripts/test_install.sh cargo-c "$target/prefix-cargo-c" && rm -rf "$target/prefix-cargo-c"
}
consumer_by_pkg_config() {
    have pkg-config || { skip "pkg-config is $(why_missing)"; return; }
    scripts/test_install.sh pkg-config "$1" "$target/prefix"
}
consumer_by_find_package() {
    have cmake || { skip "cmake is $(why_missing)"; return; }
    scripts/test_install.sh find_package "$target/prefix"
}

go_programs() {
    have pkg-config || { skip "pkg-config is $(why_missing)"; return; }
    go_binding consumer "$1" "$target/prefix"
}

examples_build() { "$MAKE" --no-print-directory examples; }

small_model=$root/models/SmolLM2-135M-Instruct.Q4_1.gguf
examples_run() {
    [ -f "$small_model" ] || { skip "the model is not fetched"; return; }
    local bin=$target/c-examples
    local out
    "$bin/generate" "$small_model" --plan --budget 33% || return 1
    out=$("$bin/generate" "$small_model" "The capital of France is" --budget 33% --tokens 16) || return 1
    echo "$out"
    case "$out" in *Paris*) ;; *) echo "no Paris in the text"; return 1 ;; esac
    "$bin/prefetch" "$small_model" "The capital of France is" --budget 40% --tokens 8 || return 1
    "$bin/eventloop" "$small_model" "The capital of France is" --budget 33% --tokens 8 || return 1
    out=$(printf 'Hello.\n/stats\nAnd now?\n/quit\nnever\n' | "$bin/chat" "$small_model" --budget 33% --tokens 8 --temperature 0 --context 128) &&
        [ "$(echo "$out" | grep -c .)" -ge 2 ] || { echo "no two answers: $out"; return 1; }
    ! "$bin/chat" tests/data/golden/arch/llama.gguf < /dev/null || { echo "a model without a template was taken"; return 1; }
    # What is wrong is said, and is no success.
    ! "$bin/generate" /no/such/model "text" && ! "$bin/generate" "$small_model" "text" --budget 1MiB &&
        ! "$bin/generate" "$small_model" "text" --budget nonsense && ! "$bin/generate" 2> /dev/null
}

go_example() {
    [ -f "$small_model" ] || { skip "the model is not fetched"; return; }
    go_binding example "$target/release" "$small_model" "$target/go"
}

go_server() {
    local tools=$target/openai-tools
    [ -f "$small_model" ] || { skip "the model is not fetched"; return; }
    have "$GO" || { skip "$GO is $(why_missing)"; return; }
    [ -x "$tools/ready" ] || {
        "$PYTHON" -m venv "$tools" && "$tools/bin/pip" install --quiet --disable-pip-version-check openai &&
            install -m 755 /dev/null "$tools/ready"
    } > "$target/pip.log" 2>&1 || { skip "the package openai is not installed, and could not be; see $target/pip.log"; return; }
    go_binding serve "$target/release" "$small_model" "$target/go" "$tools/bin/python"
}

budget_holds_in_a_cgroup() {
    local model=$root/models/tinyllama-1.1b-q4_k_m.gguf status
    scripts/cgroup_budget.sh 67108864 true 2> "$reason_file" || {
        status=$?
        cat "$reason_file"
        sed -i 's/^cgroup: //' "$reason_file"
        return $status
    }
    if [ ! -f "$model" ]; then
        mkdir -p models
        "$CARGO" run --profile tests --quiet --example make_model -- \
            --shape tinyllama-1.1b --type q4_k_m --out "${model%.gguf}.part.gguf" && mv "${model%.gguf}.part.gguf" "$model" || return 1
    fi
    scripts/prove_budget.sh "$target/c-examples/generate" "$model"
}
# The library's figures against the kernel's, in a group with as little more room.
figures_hold_in_a_cgroup() {
    local model=$root/models/gemma-3-270m-Q4_K_M.gguf limit status
    [ -f "$model" ] || model=$small_model
    [ -f "$model" ] || { skip "no model is fetched"; return; }
    limit=$("$build/budget_shared" "$model" --limit) || return 1
    scripts/cgroup_budget.sh $((limit + 24 * 1024 * 1024)) "$build/budget_shared" "$model" 2> "$reason_file" || {
        status=$?
        cat "$reason_file"
        sed -i 's/^cgroup: //' "$reason_file"
        return $status
    }
    cat "$reason_file"
}

# They are compared with the libraries, the tiny models and their logits.
platforms=
start_other_systems() {
    [ "${LAYERLINE_PLATFORMS:-0}" = 1 ] || return 0
    LAYERLINE_QUICK=1 nice -n 19 scripts/test_platforms.sh > "$target/platforms.log" 2>&1 &
    platforms=$!
}
other_systems() {
    wait "$platforms"
    local status=$? part
    cat "$target/platforms.log"
    while read -r part; do
        left_out+=("$part")
    done < <(sed -n 's/^-- \(.*\): left out.*/\1/p' "$target/platforms.log")
    return $status
}

mkdir -p "$target"
install_tools
step "fetch the small model" fetch_model smollm2
step "fetch Gemma 3" fetch_model gemma3
# First what the other systems are compared with: they run beside everything else.
step "tiny models" golden_models
step "same bits by every instruction set" same_bits_by_every_instruction_set
libraries_are_there=
step "libraries" libraries && libraries_are_there=1 && start_other_systems
step "rust tests" rust_tests
step "tokenisers agree with other packages" tokenizers_agree
step "logits agree with float64" float64_agrees
step "reference" reference
step "interface of the last release" interface_keeps_its_promise check
step "what would break it is noticed" interface_keeps_its_promise test
if [ -n "$libraries_are_there" ]; then
    native=$(native_libs)
    step "exported symbols" symbols_are_listed
    step "size of the library" library_is_small
    step "soname" soname_is_set
    step "C programs, shared and static" c_suite_plain
    step "C programs under AddressSanitizer" c_suite_sanitized
    step "C programs in valgrind" c_suite_valgrind
    for program in readme $(scripts/test_docs.sh list); do
        step "docs: $program" documented_program "$program"
    done
    step "python binding" python_tests
    step "python types" python_types
    step "texts by schemas" schemas_are_followed
    step "go binding" go_binding tests "$target/release"
    step "go binding under AddressSanitizer" go_binding leaks "$target/release" "$target/go"
    step "install by cargo-c" installs_by_cargo_c
    step "install" installs && {
        step "program by pkg-config, shared" consumer_by_pkg_config shared
        step "program by pkg-config, static" consumer_by_pkg_config static
        step "program by find_package" consumer_by_find_package
        step "docs: go programs, shared" go_programs shared
        step "docs: go programs, static" go_programs static
        step "swift binding" swift_binding tests && {
            step "swift example" swift_binding example
            step "swift programs of the documents" swift_binding programs
        }
    }
    step "examples build" examples_build && {
        step "examples run" examples_run
        step "go example runs" go_example
        step "go server, asked by the openai package" go_server
        step "budget holds in a memory cgroup" budget_holds_in_a_cgroup
        step "figures hold in a memory cgroup" figures_hold_in_a_cgroup
    }
fi
step "rust tests without prefetch" rust_tests_without_prefetch
step "same bits without prefetch" same_bits_without_prefetch
[ -z "$platforms" ] || step "other systems" other_systems

echo
echo "seconds, and of the processors, the longest steps first:"
printf '%s\n' ${times[@]+"${times[@]}"} | sort -rn | awk '{ print; sum += $1; took += $2 } END { print sum, took " in all" }'
echo
for name in ${failures[@]+"${failures[@]}"}; do
    echo "failed: $name"
done
for name in ${skips[@]+"${skips[@]}"}; do
    echo "skipped: $name"
done
for name in ${left_out[@]+"${left_out[@]}"}; do
    echo "left out, as the time was over: $name"
done
echo "$passed passed, $failed failed, ${#skips[@]} skipped"
if [ "${LAYERLINE_REQUIRE_ALL:-0}" = 1 ] && [ ${#skips[@]} -gt 0 ]; then
    echo "nothing may be skipped here (LAYERLINE_REQUIRE_ALL=1)" >&2
    exit 1
fi
[ $failed = 0 ]
