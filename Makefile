# Everything a fresh machine needs is Rust, a C compiler, make and Python 3.
#
#   make demo       fetch a small model and run it in a third of its size
#   make serve      the same model behind OpenAI's HTTP interface, by the Go example; ADDRESS=127.0.0.1:8080
#   make test       every test there is; what cannot run here is named at the end
#   make test-platforms   the systems that this machine is not: emulated, or compiled at least; after make test
#   make shuttle    locks and wake-ups of the engine and the pool in many orders; not part of make test, which it would make long
#   make tsan       threads under ThreadSanitizer; needs a nightly toolchain with rust-src
#   make lib        the shared and the static library
#   make install    headers, libraries, pkg-config file and CMake package below PREFIX, /usr/local unless told
#   make examples   the C programs of examples/
#   make header     include/layerline.h, from the doc comments of the source, and the copy in the Go module
#   make docs       the reference of the headers (Doxygen) and of the Rust interface, in target/docs and target/doc
#   make symbols    include/symbols.txt, from the library just built
#   make abi        whether programs built with the last release run with this; abi-release: this is the release
#   make bench-streaming   speed under a budget; ARGS="--help" tells the options
#   make bench-speed       prompts and decoding with everything in memory, beside llama.cpp; ARGS="--help"
#   make bench-kernels     the products of every format, beside what the machine allows, or llama.cpp's; ARGS="--help"
#   make bench-experts     what an expert cache finds in memory, ARGS="trace ..."; what it is worth, "--end-to-end trace"
#   make bench-decisions   what deciding about a page costs, from 1,000 to 100,000 pages
#   make bench-masks       what the masks of constraints take; ARGS=MODEL.gguf
#   make bench-small       attention, norms, RoPE, softmax and activations one by one
#   make fuzz       every fuzz target for 60 s each; SECONDS_EACH=600, TARGETS="chat text"; needs cargo-fuzz
#   make torture    the long forms of what make test does in short ones: an hour
#   make lint       formatting and clippy
#   make clean

CARGO ?= cargo
PYTHON ?= python3
CFLAGS ?= -O2
WARNINGS := -std=c99 -Wall -Wextra -pedantic -Werror

TARGET := $(if $(CARGO_TARGET_DIR),$(CARGO_TARGET_DIR),target)
RELEASE := $(abspath $(TARGET))/release
BIN := $(TARGET)/c-examples
MODEL := models/SmolLM2-135M-Instruct.Q4_1.gguf

ifeq ($(shell uname -s),Darwin)
LIBRARY := $(RELEASE)/liblayerline.dylib
# The name programs look for at run time, as build.rs sets it.
RUNTIME_NAME := liblayerline.0.dylib
else
LIBRARY := $(RELEASE)/liblayerline.so
RUNTIME_NAME := liblayerline.so.0
endif

PROMPT ?= The three most important things to know about the sea are
BUDGET ?= 33%
TOKENS ?= 96
ADDRESS ?= 127.0.0.1:8080
GO ?= go

PREFIX ?= /usr/local

EXAMPLES := $(BIN)/generate $(BIN)/prefetch $(BIN)/eventloop $(BIN)/chat $(BIN)/source

.PHONY: all demo serve test test-platforms shuttle tsan lib install examples header docs symbols abi abi-release bench-streaming bench-speed bench-kernels bench-small bench-masks bench-experts bench-decisions fuzz torture lint clean
all: lib examples

demo: examples
	@$(PYTHON) scripts/fetch_model.py > /dev/null
	@echo "generate $(MODEL) --budget $(BUDGET)"
	@$(BIN)/generate $(MODEL) "$(PROMPT)" --budget $(BUDGET) --tokens $(TOKENS)

serve: lib
	@$(PYTHON) scripts/fetch_model.py > /dev/null
	@cd bindings/go && CGO_LDFLAGS="-L$(RELEASE) -Wl,-rpath,$(RELEASE)" GOFLAGS="-mod=mod -tags=layerline_checkout" \
	    $(GO) build -o "$(abspath $(TARGET))/serve" ./examples/serve
	@$(TARGET)/serve -listen $(ADDRESS) $(MODEL)

test:
	@CARGO="$(CARGO)" CC="$(CC)" PYTHON="$(PYTHON)" MAKE="$(MAKE)" scripts/test.sh

test-platforms:
	@CARGO="$(CARGO)" PYTHON="$(PYTHON)" scripts/test_platforms.sh

shuttle:
	@CARGO="$(CARGO)" scripts/shuttle.sh

tsan:
	@scripts/tsan.sh

lib:
	$(CARGO) build --release
	@ln -sf $(notdir $(LIBRARY)) $(RELEASE)/$(RUNTIME_NAME)

# What is there is installed as it is: root, who installs what somebody else has built, may have no cargo.
install:
	@[ -f $(LIBRARY) ] || $(MAKE) --no-print-directory lib
	@PREFIX="$(PREFIX)" LIBDIR="$(LIBDIR)" DESTDIR="$(DESTDIR)" KINDS="$(KINDS)" scripts/install.sh $(RELEASE)

examples: lib $(EXAMPLES)

# Cargo knows whether the library is stale, so these are linked again whenever `lib` has run and changed it.
$(LIBRARY): lib ;

$(BIN)/%: examples/%.c examples/common.h include/layerline.h $(LIBRARY)
	@mkdir -p $(BIN)
	$(CC) $(WARNINGS) $(CFLAGS) -Iinclude $< -o $@ -L$(RELEASE) -llayerline -Wl,-rpath,$(RELEASE) -lpthread

header:
	$(CARGO) build --features generate-header
	cp include/layerline.h bindings/go/layerline.h

# Shapes such as [heads][dim] in the comments of internal modules look like links, and lead nowhere.
docs:
	@mkdir -p $(TARGET)/docs
	LAYERLINE_DOCS=$(TARGET)/docs doxygen docs/Doxyfile
	RUSTDOCFLAGS="-D warnings -A rustdoc::broken-intra-doc-links" $(CARGO) doc --no-deps

symbols: lib
	scripts/symbols.sh $(LIBRARY) > include/symbols.txt

abi:
	scripts/abi.sh check

abi-release:
	scripts/abi.sh release

bench-streaming bench-speed bench-kernels bench-small bench-masks bench-experts bench-decisions: bench-%:
	$(CARGO) bench --bench $* -- $(ARGS)

fuzz:
	@CARGO="$(CARGO)" SECONDS_EACH="$(SECONDS_EACH)" scripts/fuzz.sh $(TARGETS)

torture: lib
	@CARGO="$(CARGO)" scripts/torture.sh $(RELEASE)

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings

clean:
	$(CARGO) clean
	rm -rf build
