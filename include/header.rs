//! Makes include/layerline.h: one section for each file of src/ffi, in the order in which a reader needs them.

use std::path::Path;

/// File of src/ffi and title of its section. A section uses types of those before it only.
const SECTIONS: [(&str, &str); 21] = [
    ("version", "version"),
    ("error", "status and errors"),
    ("options", "options"),
    ("budget", "a budget for several models"),
    ("source", "storage of the host's own, in place of a file"),
    ("plan", "planning: what a model needs, before anything is loaded"),
    ("model", "model"),
    ("prefetch", "prefetch and completion: only layerline_model_wait waits"),
    ("session", "session: one sequence, its KV cache, its passes"),
    ("adapter", "adapters: low-rank changes of a model"),
    ("batch", "batches: passes of several sessions in the same sweeps"),
    ("state", "copying, saving and loading what a session holds"),
    ("checkpoint", "checkpoints: going back where truncation cannot"),
    ("text", "text"),
    ("detokenizer", "tokens to text as they come"),
    ("chat", "chat templates"),
    ("message", "what models write: answers, reasoning, tool calls"),
    ("sampler", "sampling and generation"),
    ("chain", "more of a sampler's chain"),
    ("constraint", "constraints: schemas, grammars, regular expressions"),
    ("generation", "generation with stop strings, constraints and drafts"),
];

const TOP: &str = r#"/* layerline: runs GGUF language models inside a memory budget, however large the model is. Weights that do not fit are
 * streamed from storage by a background worker while the arithmetic goes on.
 *
 * Made from src/ffi by `cargo build --features generate-header`; do not edit.
 *
 * Rules that hold for every function
 *
 *   Names       layerline_<noun>_<verb>: the noun is the type of the first parameter. A _new or _open function has the
 *               noun of what it makes. Functions without parameters describe the library itself.
 *   Results     Functions return a layerline_status unless they cannot fail. Out-parameters are written on success only,
 *               except `needed`, see below. A call that fails leaves everything as it was, unless its description says
 *               otherwise.
 *   Errors      Every function that returns a layerline_status has a last parameter `layerline_error **err`, except the
 *               setters of options, samplers and generations whose only failure is a value out of range. It may be NULL.
 *               It is set to NULL on success, and on failure to an error that the caller frees with
 *               layerline_error_free.
 *   Pointers    NULL is refused with LAYERLINE_ERROR_INVALID_ARGUMENT, except for `err`, `user_data`, arrays of length
 *               0, and `options` where a function reads them: there it stands for the defaults. A free function takes
 *               NULL and does nothing.
 *   Ownership   A handle that a function gives, as its result or by a `layerline_<noun> **`, belongs to the caller, who
 *               frees it with layerline_<noun>_free. Strings and arrays given to a function are not kept after it
 *               returns. `const char *` results belong to the library.
 *   Threads     "Any thread": at any time, at once with any other call except free. "One thread at a time": no two calls
 *               on that handle at once; handles may move between threads. A call that finds its handle in use returns
 *               LAYERLINE_ERROR_BUSY and does not wait. Functions on a const handle may run at once with each other.
 *   Strings in  UTF-8 with an explicit length, or NUL-terminated. Paths are NUL-terminated and taken as bytes.
 *   Strings out Into the caller's buffer `buf` of `cap` bytes. `*needed` is the length without the NUL, also when the
 *               buffer is too small: then nothing else is written and the call returns LAYERLINE_ERROR_BUFFER_TOO_SMALL.
 *               The text always ends in a NUL, so it fits when `cap` is greater than `*needed`. To learn the length
 *               alone, pass NULL and 0: LAYERLINE_ERROR_BUFFER_TOO_SMALL, as the NUL has no room. Arrays of tokens and
 *               states have no NUL: they fit when `cap` is at least `*needed`.
 *   Structs     Structs that begin with `struct_size` grow at their end in later versions. Set it to sizeof the struct
 *               before the call: the library writes as many fields as both sides know and leaves struct_size as it is.
 *   Faults      A fault inside the library ends the call with LAYERLINE_ERROR_INTERNAL. The handles of that call then
 *               return LAYERLINE_ERROR_INTERNAL from every function and can only be freed; all others are unharmed.
 *   Process     Nothing is printed, no signal handler is installed, no environment variable is needed. A request to end
 *               the thread (pthread_cancel) waits until a call has returned, also in callbacks; asynchronous cancellation
 *               must not be enabled in a thread that calls. To end a call soon, interrupt it.
 */

#ifndef LAYERLINE_H
#define LAYERLINE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif
"#;

const BOTTOM: &str = r#"
#ifdef __cplusplus
}
#endif

#endif /* LAYERLINE_H */
"#;

/// The text of the header, from the source under `root`.
pub fn generate(root: &Path) -> Result<String, Box<dyn std::error::Error>> {
    let config = cbindgen::Config::from_file(root.join("include/cbindgen.toml"))?;
    let mut header = TOP.to_string();
    for (file, title) in SECTIONS {
        let mut text = Vec::new();
        cbindgen::Builder::new()
            .with_config(config.clone())
            .with_src(root.join("src/ffi").join(file).with_extension("rs"))
            .generate()?
            .write(&mut text);
        let banner = format!("/* -- {title} ");
        header.push_str(&format!("\n{banner:-<117} */\n\n{}\n", tidy(String::from_utf8(text)?.trim())));
    }
    header.push_str(BOTTOM);
    Ok(header)
}

/// Puts one-line comments on one line, names types by their typedefs, and says intptr_t where the source does: cbindgen
/// takes it for isize.
fn tidy(text: &str) -> String {
    let mut tidied = String::new();
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        let mut ahead = lines.clone();
        if let (Some((indent, "")), Some(only), Some("*/")) =
            (line.split_once("/**"), ahead.next(), ahead.next().map(str::trim))
        {
            tidied.push_str(&format!("{indent}/** {} */\n", only.trim().trim_start_matches("* ")));
            lines = ahead;
        } else if line.starts_with("typedef") {
            tidied.push_str(&format!("{line}\n"));
        } else {
            tidied.push_str(&format!(
                "{}\n",
                line.replace("struct layerline_", "layerline_").replace("ptrdiff_t", "intptr_t")
            ));
        }
    }
    tidied.trim_end().to_string()
}
