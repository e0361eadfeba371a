/* layerline: runs GGUF language models inside a memory budget, however large the model is. Weights that do not fit are
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

/* -- version ------------------------------------------------------------------------------------------------------- */

/** The version this header belongs to. Compare with `layerline_version_number`, which is that of the library loaded. */
#define LAYERLINE_VERSION_MAJOR 0

/** Grows when something is added. */
#define LAYERLINE_VERSION_MINOR 2

/** Grows when something is corrected. */
#define LAYERLINE_VERSION_PATCH 0

/** MAJOR * 1000000 + MINOR * 1000 + PATCH. */
#define LAYERLINE_VERSION_NUMBER (((LAYERLINE_VERSION_MAJOR * 1000000) + (LAYERLINE_VERSION_MINOR * 1000)) + LAYERLINE_VERSION_PATCH)

/** Returns the version of the library as a number, made as LAYERLINE_VERSION_NUMBER is. Cannot fail; any thread. */
uint32_t layerline_version_number(void);

/**
 * Returns the version of the library as text, "MAJOR.MINOR.PATCH". The string is the library's and always valid.
 * Cannot fail; any thread.
 */
const char *layerline_version(void);

/**
 * Returns what the library was built for and runs with: target, instruction set in use on this processor, features;
 * separated by "; ". For logs: the wording may change. The string is the library's and always valid. Cannot fail; any thread.
 */
const char *layerline_build_info(void);

/* -- status and errors --------------------------------------------------------------------------------------------- */

/**
 * Why a call failed: a status and a message that names the file, the tensor, the figures concerned. Functions with a
 * last parameter `err` set it to an error that the caller owns, or to NULL on success.
 */
typedef struct layerline_error layerline_error;

/**
 * How a call ended: LAYERLINE_OK, or one of the negative LAYERLINE_ERROR_ numbers, which never change. A newer library
 * may return numbers this header does not have: treat every other number than LAYERLINE_OK as a failure.
 */
typedef int32_t layerline_status;

/** Success. */
#define LAYERLINE_OK 0

/** An argument is NULL, out of range or not UTF-8. */
#define LAYERLINE_ERROR_INVALID_ARGUMENT -1

/** A missing file, a short read, an error of the device. */
#define LAYERLINE_ERROR_IO -2

/** A malformed file: not GGUF or not a state, truncated, contradictory, or with values out of range. */
#define LAYERLINE_ERROR_FORMAT -3

/** A valid file or request that needs what this library does not have; the message names it. */
#define LAYERLINE_ERROR_UNSUPPORTED -4

/** The memory budget has no room for it; the message gives both figures. */
#define LAYERLINE_ERROR_MEMORY_BUDGET -5

/**
 * The system gave no memory. So ends every call whose files or arguments ask for more than there is: opening, sessions,
 * passes, samplers, states. Two things still end the process where there is no memory, as they do in any Rust program:
 * small ones (errors, events, what threads share, lists with some bytes for each layer and page of a model), and what
 * tokenising, detokenising, chat templates and constraints work with, which is in proportion to the text; for the first
 * constraint of a model also up to 100 bytes for each token of its vocabulary.
 */
#define LAYERLINE_ERROR_OUT_OF_MEMORY -6

/** The call was interrupted, or its ticket was cancelled. */
#define LAYERLINE_ERROR_CANCELLED -7

/** The tokens do not fit into the session's context. */
#define LAYERLINE_ERROR_CONTEXT_FULL -8

/** The result is longer than the buffer; *needed says how long. */
#define LAYERLINE_ERROR_BUFFER_TOO_SMALL -9

/** Another call is using the handle, which this call needs for itself; or too many events wait to be taken. */
#define LAYERLINE_ERROR_BUSY -10

/** A fault inside the library. The handles of that call can only be freed; all others are unharmed. */
#define LAYERLINE_ERROR_INTERNAL -11

/** What was named does not exist: a metadata key, a ticket, a chat template. */
#define LAYERLINE_ERROR_NOT_FOUND -12

/**
 * Returns a short English description of a status, "unknown status" for a number that is none. The string is the
 * library's and always valid. Cannot fail; any thread.
 */
const char *layerline_status_string(layerline_status status);

/** Returns the status of an error; LAYERLINE_OK for NULL. Cannot fail; any thread. */
layerline_status layerline_error_status(const layerline_error *error);

/**
 * Returns the message of an error, UTF-8; "" for NULL. The string is the error's and valid until it is freed.
 * Cannot fail; any thread.
 */
const char *layerline_error_message(const layerline_error *error);

/** Frees an error; NULL is a no-op. Cannot fail; any thread, once. */
void layerline_error_free(layerline_error *error);

/* -- options ------------------------------------------------------------------------------------------------------- */

/** Direct reads where the file system supports them, else buffered ones; `layerline_stats.io` says which. */
#define LAYERLINE_IO_AUTO 0

/** Direct reads, past the page cache. */
#define LAYERLINE_IO_DIRECT 1

/** Reads through the page cache. */
#define LAYERLINE_IO_BUFFERED 2

/** A mapping of the file. A file that is truncated while it is mapped can kill the process. */
#define LAYERLINE_IO_MMAP 3

/** By the callback of a source: `layerline_stats.io` says so. It cannot be set. */
#define LAYERLINE_IO_SOURCE 4

/** Keys and values are half floats. */
#define LAYERLINE_KV_F16 0

/**
 * Keys and values are signed bytes with a scale for every 32 of them: 17/32 of the memory of half floats. Results differ
 * a little.
 */
#define LAYERLINE_KV_Q8_0 1

/**
 * Settings for opening a model. The model takes a copy: options may be changed, used again and freed at any time. Where
 * a function takes options, NULL stands for the defaults.
 */
typedef struct layerline_options layerline_options;

/**
 * Makes options with every setting at its default. The caller owns them: `layerline_options_free`. NULL when there is
 * no memory. Any thread.
 */
layerline_options *layerline_options_new(void);

/** Frees options; NULL is a no-op. Models that were opened with them are not affected. Any thread, once. */
void layerline_options_free(layerline_options *options);

/**
 * Sets the bytes that the library may allocate for a model and all its sessions: weights, KV caches, scratch, vocabulary,
 * metadata. 0, the default: derived from the cgroup's limit and the free memory. Opening a model refuses a budget that is
 * too small with LAYERLINE_ERROR_MEMORY_BUDGET; `layerline_options_plan` says beforehand what is needed.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_options_set_memory_budget(layerline_options *options,
                                                     uint64_t bytes);

/**
 * Sets how many tokens a new session can hold where `layerline_session_new` is given 0. Its KV cache grows with them.
 * 0, the default: the lesser of 4096 and what the model was trained for.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_options_set_context_length(layerline_options *options, uint32_t tokens);

/**
 * Sets how many tokens of a prompt share one sweep over the weights: more make a long prompt faster and scratch memory
 * larger. 0, the default: 256. Results do not depend on it, and the budget never changes it. In an encoder all tokens of a
 * sequence share one sweep, whatever this says: there the context length determines the scratch memory.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_options_set_chunk_length(layerline_options *options,
                                                    uint32_t tokens);

/**
 * Sets whether passes of several sessions of the model that wait for their turn share a sweep by themselves: threads that
 * generate at once then read the weights once for each step, not once each. Results do not depend on it. A prompt leaves
 * room for those who generate, and holds them up for no longer than a chunk. After a sweep the next one waits for those
 * who took part and usually come back at once, for a quarter of the time that a sweep takes and 100 ms at most. Passes of
 * `layerline_model_forward_batch` share sweeps in any case. Default: true.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_options_set_share_sweeps(layerline_options *options,
                                                    bool enabled);

/**
 * Sets whether the layer of a file that predicts further tokens is opened in place of the model ("nextn",
 * "multi-token prediction"): a model that drafts for the other one, see `layerline_generation_set_draft_model`. Its budget
 * holds that layer, an embedding and a head. It has no tokeniser, and sessions of it run no passes of their own. Default:
 * false; a model without it neither reads that layer nor has memory for it. Opening and plans refuse a file that has none,
 * and an architecture whose layer is not built in, with LAYERLINE_ERROR_UNSUPPORTED.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_options_set_predictor(layerline_options *options,
                                                 bool enabled);

/**
 * Sets the number of compute threads. 0, the default: the CPUs that this process may use. Results do not depend on it.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_options_set_threads(layerline_options *options, uint32_t threads);

/**
 * Sets whether a background loader reads ahead of the pass. True is the default; false: every load is on demand, with
 * the same results.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_options_set_prefetch(layerline_options *options, bool enabled);

/**
 * Sets how many layers ahead of the pass the loader reads. 0, the default: as far as the budget allows.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_options_set_prefetch_distance(layerline_options *options, uint32_t layers);

/**
 * Sets the most layers that are kept in memory, regardless of the budget. 0, the default: as many as the budget allows.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_options_set_cache_layers(layerline_options *options, uint32_t layers);

/**
 * Sets how weights are read from storage: one of LAYERLINE_IO_. LAYERLINE_IO_AUTO is the default. For a model that is read
 * from a `layerline_source`, opening takes LAYERLINE_IO_AUTO and LAYERLINE_IO_BUFFERED, and refuses the others with
 * LAYERLINE_ERROR_UNSUPPORTED.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a number that is not one of them. One thread at a time.
 */
layerline_status layerline_options_set_io(layerline_options *options,
                                          int32_t io);

/**
 * Sets how sessions keep keys and values: one of LAYERLINE_KV_. LAYERLINE_KV_F16 is the default. The budget never changes
 * it. An encoder keeps half floats, whatever this says. Opening refuses LAYERLINE_KV_Q8_0 with
 * LAYERLINE_ERROR_UNSUPPORTED for a model whose heads are not a multiple of 32 wide.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a number that is not one of them. One thread at a time.
 */
layerline_status layerline_options_set_kv_type(layerline_options *options,
                                               int32_t kv_type);

/**
 * Sets a profile of use, which `layerline_model_profile_save` wrote: where not all experts of the model fit, the background
 * loader then reads the likeliest ones before passes use them, instead of passes filling memory with those that they use.
 * Results do not depend on it. Opening reads the file, and fails where it cannot be used: with LAYERLINE_ERROR_IO,
 * LAYERLINE_ERROR_FORMAT when it is not a profile, cut short or damaged, LAYERLINE_ERROR_UNSUPPORTED when another version of
 * the library wrote it in a form that this one does not know, LAYERLINE_ERROR_INVALID_ARGUMENT when it is of another model.
 *
 * `path`: NUL-terminated, bytes as the file system has them (UTF-8 on Windows); copied. NULL, the default: none.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_options_set_profile(layerline_options *options,
                                               const char *path);

/* -- a budget for several models ----------------------------------------------------------------------------------- */

/**
 * A memory budget that several models share. Each gets what it cannot do without, and the rest is divided in proportion
 * to what each would need to stream nothing. Shares are adapted when models and sessions are opened and freed; the sum of
 * what the models use never exceeds the total. Models keep the budget alive: the handle may be freed at any time.
 */
typedef struct layerline_budget layerline_budget;

/**
 * Makes a budget of `bytes` that models can share. The caller owns it: `layerline_budget_free`. NULL when there is no memory.
 * Any thread.
 */
layerline_budget *layerline_budget_new(uint64_t bytes);

/** Frees the handle; NULL is a no-op. Models opened with the budget go on sharing it. Any thread, once. */
void layerline_budget_free(layerline_budget *budget);

/**
 * Changes the total, also while passes run. When it returns, the models use no more than that; this may take the time
 * of one page of a running pass.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_MEMORY_BUDGET when the open models need more: the message
 * gives both figures, and nothing has changed. Any thread.
 */
layerline_status layerline_budget_set_bytes(layerline_budget *budget, uint64_t bytes, layerline_error **err);

/**
 * Lets models that are opened with these options share `budget` with all others opened with it, in place of a memory
 * budget of their own. NULL: each has a budget of its own again. `layerline_model_set_memory_budget` is refused for models
 * on a shared budget.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_options_set_shared_budget(layerline_options *options,
                                                     const layerline_budget *budget);

/* -- storage of the host's own, in place of a file ----------------------------------------------------------------- */

/**
 * Storage of the host's own that a model or an adapter is read from, in place of a file: an archive, memory, a network, a
 * browser. It is a size and a callback that reads at an offset. Models and adapters keep what they need of it, so that it
 * may be freed after they were opened, and one source may serve several of them.
 */
typedef struct layerline_source layerline_source;

/**
 * Reads at an offset of a source.
 *
 * `offset`, `length`: which bytes; never 0 of them, and never any beyond the size of the source.
 * `buf`: where they go. The callback may write all `length` bytes of it, also those that it then does not count.
 * `user_data`: as given to `layerline_source_new`.
 *
 * Returns how many bytes it has read, from the first on. Fewer than `length` is fine: the rest is asked for again. 0 says
 * that there is nothing at the offset, which is an error, as the size of the source says otherwise; so is more than `length`.
 * A negative number says that reading failed; the message of the error has it. What failed is asked for a second time, then
 * the pass ends with LAYERLINE_ERROR_IO, and the next one may go well.
 *
 * It is called on threads of the library and of those who call it, also on several at once, unless
 * `layerline_source_set_concurrent` says otherwise, and may block for as long as it likes. What waits for these bytes waits
 * as long; all else goes on. An interrupt ends a pass that waits for a thread of the library. A pass that reads on its own
 * thread, as it does where prefetching is off or a read has failed, ends no sooner than the callback. Freeing the last handle
 * of a model waits for a callback for at most 2 seconds; one that runs on then still has its buffer and its `user_data`.
 *
 * It must return: no C++ exception and no longjmp may leave it. It must not call functions on models that are read from this
 * source, on their sessions, and on the source.
 */
typedef int64_t (*layerline_read_callback)(uint64_t offset, void *buf, size_t length, void *user_data);

/**
 * Tells that the library does not use `user_data` any more: it is the last call with it. It comes on any thread, inside the
 * last free function or after it, and must not call the library.
 */
typedef void (*layerline_release_callback)(void *user_data);

/**
 * Makes a source.
 *
 * `size`: bytes of it; it must not change.
 * `read`: see `layerline_read_callback`.
 * `release`: called once, when the source is freed and all that was opened from it; NULL: nothing is. Where this function
 * fails it is not called.
 * `user_data`: passed to both.
 * `source`: set to a source that the caller owns: `layerline_source_free`.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
 */
layerline_status layerline_source_new(uint64_t size,
                                      layerline_read_callback read,
                                      layerline_release_callback release,
                                      void *user_data,
                                      layerline_source **source,
                                      layerline_error **err);

/** Frees a source; NULL is a no-op. What was opened from it goes on. Any thread, once. */
void layerline_source_free(layerline_source *source);

/**
 * Sets what messages call a source. Default: "the source". Sources of a model in several files need the names that the
 * files had, such as "model-00001-of-00003.gguf", with any folders or none.
 *
 * `name`: NUL-terminated, UTF-8.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_source_set_name(layerline_source *source, const char *name, layerline_error **err);

/**
 * Sets whether the read callback may be called on several threads at once. True is the default and the faster one where
 * storage takes several reads at a time. False: one call at a time, whatever is opened from the source afterwards.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_source_set_concurrent(layerline_source *source, bool enabled, layerline_error **err);

/**
 * Adds a further file of a model in several to the source of its first one, in any order. Opening finds it by the name that
 * it has now, and refuses a model of which files are missing or that has fewer.
 *
 * `further`: a source of its own; the first one keeps what it needs of it, so that it may be freed.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also where it is the source itself or has further files of its own;
 * LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
 */
layerline_status layerline_source_add_file(layerline_source *source,
                                           const layerline_source *further,
                                           layerline_error **err);

/* -- planning: what a model needs, before anything is loaded ------------------------------------------------------- */

/** What a model needs at given options. All sizes in bytes. */
typedef struct layerline_plan {
    /** Set by the caller to sizeof(layerline_plan) before the call. */
    uint32_t struct_size;
    /** Layers of the model. */
    uint32_t layer_count;
    /** The file, or all files of a model in several. */
    uint64_t file_bytes;
    /** All weights, as they are in the file. */
    uint64_t weight_bytes;
    /** The least budget that works. */
    uint64_t floor_bytes;
    /** The budget at which nothing is streamed. */
    uint64_t full_bytes;
    /** Part of the floor and of full: what one session takes, its KV cache and room for the results of a pass. */
    uint64_t kv_bytes;
    /** Part of both: the activations of a running pass, and the stacks of threads. */
    uint64_t scratch_bytes;
    /** Part of both: vocabulary, metadata, and small tensors that always stay. */
    uint64_t tables_bytes;
    /** Weights that stay, at these options: the memory they take, in whole pages of the system. */
    uint64_t pinned_bytes;
    /** Weights read from storage in each forward pass, at these options; experts as if the same ones always stayed. */
    uint64_t streamed_bytes;
    /** Tensors of parts that a pass over text does not run, such as vision and audio towers: they are never read. */
    uint64_t unread_tensors;
    /** Part of the weights: what those tensors take in the file. */
    uint64_t unread_bytes;
    /** Weights of the experts that one token uses, which are part of streamed_bytes as far as they do not stay. */
    uint64_t expert_working_set_bytes;
} layerline_plan;

/**
 * Tells what a model would need at these options. Reads the directory of the file and no weights; a budget below the
 * floor is not an error here.
 *
 * `options`: as for `layerline_model_open`; NULL: the defaults.
 * `path`: NUL-terminated, bytes as the file system has them (UTF-8 on Windows).
 * `plan`: filled; set `plan->struct_size` before the call.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, LAYERLINE_ERROR_IO, LAYERLINE_ERROR_FORMAT, LAYERLINE_ERROR_UNSUPPORTED,
 * LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread; it waits for storage.
 */
layerline_status layerline_options_plan(const layerline_options *options,
                                        const char *path,
                                        layerline_plan *plan,
                                        layerline_error **err);

/**
 * Tells what a model in storage of the host's own would need, as `layerline_options_plan` does for a file.
 *
 * `source`: as for `layerline_model_open_source`.
 *
 * Errors: those of `layerline_options_plan`. Any thread; it waits for the source.
 */
layerline_status layerline_options_plan_source(const layerline_options *options,
                                               const layerline_source *source,
                                               layerline_plan *plan,
                                               layerline_error **err);

/* -- model --------------------------------------------------------------------------------------------------------- */

/**
 * An open model. It is reference-counted inside: sessions keep what they need of it, so that it may be freed before
 * them. All its functions may be called from several threads at once.
 */
typedef struct layerline_model layerline_model;

/** Facts of a model. */
typedef struct layerline_model_info {
    /** Set by the caller to sizeof(layerline_model_info) before the call. */
    uint32_t struct_size;
    /** Layers, counted from 0 wherever one is named. */
    uint32_t layer_count;
    /** Numbers in the hidden state of a token. */
    uint32_t embedding_length;
    /** Attention heads of a layer. */
    uint32_t head_count;
    /** Heads of keys and values, which attention heads share. */
    uint32_t head_count_kv;
    /** Tokens of the vocabulary, which are numbered from 0. */
    uint32_t vocab_size;
    /** Tokens of context the model was trained for. */
    uint32_t context_length;
    /** 0: the model has no experts. */
    uint32_t expert_count;
    /** Experts that a token is routed to. */
    uint32_t expert_used_count;
    /** The token that begins a text; -1: none. */
    int32_t bos_token;
    /** The token that ends a text; -1: none. */
    int32_t eos_token;
    /** The model has an output head, so that passes can leave logits. Encoders have none. */
    bool has_head;
    /** A token sees only those before it. False in encoders, where all tokens of a pass see each other. */
    bool causal;
    /** `layerline_model_format_chat` and the like have a template. */
    bool has_chat_template;
    /**
     * Layers of the model keep one state in place of keys and values for each token. Truncation cannot take such a state
     * back; a checkpoint can.
     */
    bool has_recurrent_memory;
    /** Weights, each counted as one whatever its format. */
    uint64_t parameter_count;
} layerline_model_info;

/**
 * Opens a model. Returns as soon as the file's directory is read and checked; weights arrive in the background.
 *
 * `path`: NUL-terminated, bytes as the file system has them (UTF-8 on Windows). Of a model in several files, the first.
 * `options`: copied; NULL: the defaults.
 * `model`: set to a model that the caller owns: `layerline_model_free`.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, LAYERLINE_ERROR_IO, LAYERLINE_ERROR_FORMAT, LAYERLINE_ERROR_UNSUPPORTED,
 * LAYERLINE_ERROR_MEMORY_BUDGET, LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread; it waits for storage.
 */
layerline_status layerline_model_open(const char *path,
                                      const layerline_options *options,
                                      layerline_model **model,
                                      layerline_error **err);

/**
 * Opens a model from a file descriptor, for hosts that get files without paths or keep a model inside an archive.
 *
 * `fd`: a regular file open for reading. It is duplicated: the caller keeps and closes its own. Its file position is
 * neither used nor changed.
 * `offset`, `length`: where in the file the model lies, in bytes; length 0: to the end of the file.
 * `options`, `model`: as for `layerline_model_open`.
 *
 * Errors: those of `layerline_model_open`; LAYERLINE_ERROR_UNSUPPORTED where the system has no such descriptors.
 * Any thread.
 */
layerline_status layerline_model_open_fd(int fd,
                                         uint64_t offset,
                                         uint64_t length,
                                         const layerline_options *options,
                                         layerline_model **model,
                                         layerline_error **err);

/**
 * Opens a model from storage of the host's own.
 *
 * `source`: of a model in several files that of the first one, which has the others: `layerline_source_add_file`.
 * `options`, `model`: as for `layerline_model_open`.
 *
 * Errors: those of `layerline_model_open`; LAYERLINE_ERROR_UNSUPPORTED also where the options ask for direct reads or a
 * mapping. Any thread; it waits for the source.
 */
layerline_status layerline_model_open_source(const layerline_source *source,
                                             const layerline_options *options,
                                             layerline_model **model,
                                             layerline_error **err);

/**
 * Frees a model; NULL is a no-op. Sessions of it go on until they are freed themselves. Loads in flight are abandoned.
 * Any thread, once, with no call on this handle running.
 */
void layerline_model_free(layerline_model *model);

/**
 * Fills `info` with facts of the model; set `info->struct_size` before the call.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread.
 */
layerline_status layerline_model_get_info(const layerline_model *model,
                                          layerline_model_info *info,
                                          layerline_error **err);

/**
 * Gives one value of the file's metadata as text: any scalar or string.
 *
 * `key`: NUL-terminated, such as "general.name".
 * `buf`, `cap`, `needed`: the text, as described for strings at the top.
 *
 * Errors: LAYERLINE_ERROR_NOT_FOUND when the file has no such key, or when it is one of the vocabulary's arrays, which the
 * tokeniser has taken over; LAYERLINE_ERROR_UNSUPPORTED when its value is another array; LAYERLINE_ERROR_INVALID_ARGUMENT;
 * LAYERLINE_ERROR_BUFFER_TOO_SMALL. Any thread.
 */
layerline_status layerline_model_metadata(const layerline_model *model,
                                          const char *key,
                                          char *buf,
                                          size_t cap,
                                          size_t *needed,
                                          layerline_error **err);

/**
 * Sets `count` to the number of metadata keys that `layerline_model_metadata_key_at` gives.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread.
 */
layerline_status layerline_model_metadata_count(const layerline_model *model,
                                                size_t *count,
                                                layerline_error **err);

/**
 * Gives one key of the file's metadata. The keys are in the file's order; those of the vocabulary's arrays, which the
 * tokeniser has taken over, are left out.
 *
 * `index`: from 0, below the count that `layerline_model_metadata_count` gives.
 * `buf`, `cap`, `needed`: the key, as described for strings at the top.
 *
 * Errors: LAYERLINE_ERROR_NOT_FOUND when `index` is not below the count; LAYERLINE_ERROR_INVALID_ARGUMENT;
 * LAYERLINE_ERROR_BUFFER_TOO_SMALL. Any thread.
 */
layerline_status layerline_model_metadata_key_at(const layerline_model *model,
                                                 size_t index,
                                                 char *buf,
                                                 size_t cap,
                                                 size_t *needed,
                                                 layerline_error **err);

/**
 * Changes the memory budget, also while passes run, and returns at once. With a smaller one, memory goes back to the
 * system now, except for what a running pass or read uses: that follows within the time of one page, and `used_bytes` of
 * the stats tells it. With a larger one, more pages are kept from the next pass on. `bytes` 0: derived from the cgroup's
 * limit and the free memory.
 *
 * Errors: LAYERLINE_ERROR_MEMORY_BUDGET when it is below what the open sessions need, and nothing changes;
 * LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread.
 */
layerline_status layerline_model_set_memory_budget(layerline_model *model,
                                                   uint64_t bytes,
                                                   layerline_error **err);

/**
 * Writes how likely each expert of a model is to be used, by all passes so far and by the profile that the model was opened
 * with, to a file for `layerline_options_set_profile`. It takes a byte for each expert, and 48.
 *
 * The file is written as `.layerline-*.tmp` beside its place, and gets its name when it is complete and on storage: what
 * had the name before is replaced whole, or stays. Only its owner can read it.
 *
 * `path`: NUL-terminated, bytes as the file system has them (UTF-8 on Windows).
 *
 * Errors: LAYERLINE_ERROR_UNSUPPORTED when the model has no experts; LAYERLINE_ERROR_IO, also where the name belongs to
 * something other than a regular file; LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread; it waits
 * for storage.
 */
layerline_status layerline_model_profile_save(const layerline_model *model,
                                              const char *path,
                                              layerline_error **err);

/* -- prefetch and completion: only layerline_model_wait waits ------------------------------------------------------ */

/** One layer of a prefetch is ready, or failed. */
#define LAYERLINE_EVENT_LAYER 1

/** A ticket is finished: all its layers, or its forward pass. */
#define LAYERLINE_EVENT_DONE 2

/** The layer is not in memory. */
#define LAYERLINE_LAYER_ABSENT 0

/** Reads of it are queued or in flight. */
#define LAYERLINE_LAYER_LOADING 1

/** All of it is in memory. */
#define LAYERLINE_LAYER_READY 2

/** All of it is in memory, and it stays there. */
#define LAYERLINE_LAYER_PINNED 3

/** A completion. Each is given out once, to the thread that polls or waits first. */
typedef struct layerline_event {
    /** The ticket that the request gave. */
    uint64_t ticket;
    /** LAYERLINE_EVENT_LAYER or LAYERLINE_EVENT_DONE. */
    uint32_t kind;
    /** LAYERLINE_OK, or why it failed; `layerline_model_ticket_error` gives the sentence. */
    layerline_status status;
    /** Which layer, for LAYERLINE_EVENT_LAYER. */
    uint32_t layer;
    /** Always 0. */
    uint32_t reserved;
    /** Bytes read from storage for it. For a pass: while it ran, which includes what was read ahead for the next one. */
    uint64_t bytes;
    /** Nanoseconds since the request. */
    uint64_t elapsed_ns;
} layerline_event;

/** Counters since the model was opened. */
typedef struct layerline_stats {
    /** Set by the caller to sizeof(layerline_stats) before the call. */
    uint32_t struct_size;
    /** The LAYERLINE_IO_ mode in use. */
    int32_t io;
    /** The budget now: the model's own, or its share. */
    uint64_t budget_bytes;
    /** What is allocated of it now. */
    uint64_t used_bytes;
    /** The most that was ever allocated. */
    uint64_t peak_bytes;
    /** Weights that stay, as planned now. */
    uint64_t pinned_bytes;
    /** Passes that ended well. */
    uint64_t passes;
    /** Tokens of those passes. */
    uint64_t tokens;
    /** Layer accesses that found every page pinned and there. */
    uint64_t layers_resident;
    /** Layer accesses with streamed pages, all there in time. */
    uint64_t layers_prefetched;
    /** Layer accesses that had to wait. */
    uint64_t layers_stalled;
    /** Time that passes waited for pages. */
    uint64_t stall_ns;
    /** Time that passes computed. */
    uint64_t compute_ns;
    /** Time of reads, summed over all of them; they overlap. */
    uint64_t read_ns;
    /** Bytes read from storage, for passes and prefetches. */
    uint64_t read_bytes;
    /** Calls of `layerline_model_prefetch` that returned a ticket. */
    uint64_t prefetch_requests;
    /** Layers of them that failed. */
    uint64_t prefetch_failures;
    /** Pages evicted to make room for others. */
    uint64_t evictions;
    /** Experts that passes were routed to and found in memory. One that several tokens of a chunk use counts once. */
    uint64_t expert_hits;
    /** Experts that passes were routed to and had to read. */
    uint64_t expert_misses;
    /** What had to be read of those. */
    uint64_t expert_missed_bytes;
    /** Experts evicted to make room for others, or because the budget fell. */
    uint64_t expert_evictions;
    /** What the experts that one token uses take. */
    uint64_t expert_working_set_bytes;
} layerline_stats;

/**
 * Asks for layers to be loaded ahead of their use, and returns at once. Each layer gives a LAYERLINE_EVENT_LAYER when it
 * is loaded, then the ticket a LAYERLINE_EVENT_DONE. What was loaded is kept until a pass has used it or the ticket is
 * cancelled, as far as memory allows: passes come first. A failed prefetch is an event, and no pass fails
 * because of it: LAYERLINE_ERROR_MEMORY_BUDGET says that the budget has no frames for the layer beside those that passes
 * need, or that earlier prefetches keep them all. Of a layer with experts it loads what every pass uses: which experts a
 * pass needs is known only when it runs.
 *
 * `first_layer`, `count`: which layers, counted from 0.
 * `ticket`: set to a number that events and `layerline_model_cancel` use; never 0.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the model has no such layers; LAYERLINE_ERROR_UNSUPPORTED when it was
 * opened without prefetching; LAYERLINE_ERROR_BUSY when too many events wait to be taken. Any thread.
 */
layerline_status layerline_model_prefetch(layerline_model *model,
                                          uint32_t first_layer,
                                          uint32_t count,
                                          uint64_t *ticket,
                                          layerline_error **err);

/**
 * Cancels a request: what is left of it is abandoned, and its LAYERLINE_EVENT_DONE has the status
 * LAYERLINE_ERROR_CANCELLED. For a prefetch, and for a submitted pass that waits for its turn, the event is posted before
 * this returns; a pass that runs ends within the time of one page. A ticket that is finished already is not an error.
 *
 * Errors: LAYERLINE_ERROR_NOT_FOUND when there never was such a ticket; LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread.
 */
layerline_status layerline_model_cancel(layerline_model *model,
                                        uint64_t ticket,
                                        layerline_error **err);

/**
 * Tells why a background request failed. Returns the status of its LAYERLINE_EVENT_DONE and sets `err`, as the request
 * would have done had it been a call that waits. LAYERLINE_OK: the request has succeeded or is under way. The errors of
 * the last 256 failed requests are kept, and may be asked for any number of times.
 *
 * Errors: the request's own; LAYERLINE_ERROR_NOT_FOUND when there never was such a ticket or it is too old to tell;
 * LAYERLINE_ERROR_INVALID_ARGUMENT for a NULL model. Any thread.
 */
layerline_status layerline_model_ticket_error(const layerline_model *model, uint64_t ticket, layerline_error **err);

/**
 * Takes events that are waiting, at most `cap` of them, oldest first, without waiting for more.
 *
 * `events`, `cap`: where they are written; there must be room for at least one.
 * `count`: set to how many there were, perhaps 0.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread.
 */
layerline_status layerline_model_poll(layerline_model *model,
                                      layerline_event *events,
                                      size_t cap,
                                      size_t *count,
                                      layerline_error **err);

/**
 * Waits for the first event, then takes events as `layerline_model_poll` does.
 *
 * `timeout_ms`: how long at most; -1: no limit. When it passes without an event, the call succeeds with *count 0.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread; the only function of this section that waits.
 */
layerline_status layerline_model_wait(layerline_model *model,
                                      int32_t timeout_ms,
                                      layerline_event *events,
                                      size_t cap,
                                      size_t *count,
                                      layerline_error **err);

/**
 * Returns a handle for event loops that is ready while events wait: on Unix a file descriptor, which is readable then, on
 * Windows the HANDLE of an event that is reset by hand, which is signalled then; -1 where the system has none or on a
 * fault. It is the model's: do not read, write, set, reset or close it. Any thread.
 */
intptr_t layerline_model_event_handle(const layerline_model *model);

/**
 * Tells where a layer is: sets `state` to one of LAYERLINE_LAYER_.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the model has no such layer. Any thread.
 */
layerline_status layerline_model_layer_state(const layerline_model *model,
                                             uint32_t layer,
                                             int32_t *state,
                                             layerline_error **err);

/**
 * Fills `stats` with the model's counters; set `stats->struct_size` before the call.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread, also while passes run.
 */
layerline_status layerline_model_get_stats(const layerline_model *model,
                                           layerline_stats *stats,
                                           layerline_error **err);

/* -- session: one sequence, its KV cache, its passes --------------------------------------------------------------- */

/** Logits for the last token of a pass. */
#define LAYERLINE_LOGITS_LAST 0

/** Logits for every token of a pass. */
#define LAYERLINE_LOGITS_ALL 1

/** No logits: the output head is not read. */
#define LAYERLINE_LOGITS_NONE 2

/** No embeddings. */
#define LAYERLINE_EMBEDDINGS_NONE 0

/** An embedding of every token of a pass: its hidden state after the final norm. */
#define LAYERLINE_EMBEDDINGS_ALL 1

/** The embedding of the last token of a pass. */
#define LAYERLINE_EMBEDDINGS_LAST 2

/** The mean of the embeddings of all tokens of a pass, summed in their order in f32, then divided. */
#define LAYERLINE_EMBEDDINGS_MEAN 3

/** The embedding of the first token of a pass: the classification token of models like BERT. */
#define LAYERLINE_EMBEDDINGS_FIRST 4

/** In place of an embedding the outputs of the model's classifier for a pass: one, the score, of a reranker. */
#define LAYERLINE_EMBEDDINGS_SCORE 5

/**
 * One sequence of tokens on a model: its KV cache and its passes. Several sessions of one model may run at once, each
 * by one thread at a time.
 */
typedef struct layerline_session layerline_session;

/** Facts of a session. */
typedef struct layerline_session_info {
    /** Set by the caller to sizeof(layerline_session_info) before the call. */
    uint32_t struct_size;
    /** Tokens that the session can hold. */
    uint32_t context_length;
    /** Tokens that it holds now: the next pass begins at this position. */
    uint64_t position;
    /**
     * Bytes that it takes from the model's budget: its KV cache, room to choose a token in, and the results of a pass, but
     * for rows of all tokens. Checkpoints are not part of it.
     */
    uint64_t memory_bytes;
    /** Part of `memory_bytes`: keys and values, of as many tokens as the session can hold. */
    uint64_t cache_bytes;
    /** How keys and values are kept: one of LAYERLINE_KV_. */
    int32_t kv_type;
    /** The fewest tokens, beside 0, to which `layerline_session_truncate` can go back now. */
    uint32_t fewest_tokens;
} layerline_session_info;

/** How far a session's call has come. */
typedef struct layerline_progress {
    /** Set by the caller to sizeof(layerline_progress) before the call. */
    uint32_t struct_size;
    /** Always 0. */
    uint32_t reserved;
    /**
     * Bytes of weights that the pass is done with, from memory or from storage. Experts that no token chose count with
     * their layer.
     */
    uint64_t bytes_done;
    /** Bytes of weights that it needs in all: those of the model for each chunk of tokens. */
    uint64_t bytes;
    /** Tokens whose chunk is done. */
    uint64_t tokens_done;
    /** Tokens of the pass. */
    uint64_t tokens;
} layerline_progress;

/**
 * Begins a sequence on a model. Its KV cache is taken from the model's budget, and given back when the session is freed.
 *
 * `context_length`: tokens it can hold; 0: what the model's options say. An encoder can hold no more than that.
 * `session`: set to a session that the caller owns: `layerline_session_free`. It keeps the model alive.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for its cache,
 * LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
 */
layerline_status layerline_session_new(const layerline_model *model,
                                       uint32_t context_length,
                                       layerline_session **session,
                                       layerline_error **err);

/**
 * Frees a session; NULL is a no-op. A submitted pass may be running or waiting: it is ended as by
 * `layerline_session_interrupt`, but not waited for. When it has ended, what the session holds goes back to the budget, and
 * then its LAYERLINE_EVENT_DONE is posted. Any thread, once, with no call on the session running.
 */
void layerline_session_free(layerline_session *session);

/**
 * Fills `info` with facts of the session; set `info->struct_size` before the call.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while a pass runs or is submitted. Any thread.
 */
layerline_status layerline_session_get_info(const layerline_session *session,
                                            layerline_session_info *info,
                                            layerline_error **err);

/**
 * Runs tokens through the model, after those that the session holds already. Layers that are not in memory are waited
 * for.
 *
 * `tokens`, `count`: at least one.
 * `logits`: one of LAYERLINE_LOGITS_: for which of the tokens `layerline_session_logits` will have a row.
 * `embeddings`: one of LAYERLINE_EMBEDDINGS_: what `layerline_session_embeddings` will have.
 *
 * Memory for one row of logits and one embedding is part of what every session takes; more rows are taken from the budget
 * until the next pass or truncation.
 *
 * In an encoder, such as BERT, tokens see those after them: each pass is a sequence of its own, whole, from position 0,
 * whatever the session has taken in before. Encoders have no output head, so `logits` must be LAYERLINE_LOGITS_NONE.
 *
 * After an error the session is as it was before the pass.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_UNSUPPORTED for
 * logits of a model without an output head; LAYERLINE_ERROR_CONTEXT_FULL; LAYERLINE_ERROR_MEMORY_BUDGET when the budget
 * has no room for the rows of LAYERLINE_LOGITS_ALL or LAYERLINE_EMBEDDINGS_ALL; LAYERLINE_ERROR_CANCELLED by
 * `layerline_session_interrupt`; LAYERLINE_ERROR_IO; LAYERLINE_ERROR_BUSY when another call on the session is running or a
 * pass is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
 */
layerline_status layerline_session_forward(layerline_session *session,
                                           const int32_t *tokens,
                                           size_t count,
                                           int32_t logits,
                                           int32_t embeddings,
                                           layerline_error **err);

/**
 * Begins the same pass as `layerline_session_forward` on a thread of the library, and returns at once. How it ended is
 * the status of a LAYERLINE_EVENT_DONE of the model: take it by `layerline_model_poll` or `layerline_model_wait`, or watch
 * `layerline_model_event_handle`; `layerline_model_ticket_error` gives the error of one that failed. Until then the
 * session belongs to the pass: functions on it return LAYERLINE_ERROR_BUSY, except `layerline_session_interrupt`,
 * `layerline_session_clear_interrupt` and `layerline_session_free`. When the event is posted the session is free again,
 * with the rows asked for; after a failure it is as it was before the pass.
 *
 * Submitted passes of one model take turns in the order in which they were submitted, or share sweeps
 * (`layerline_options_set_share_sweeps`). The first one starts the thread, whose stack is part of every plan. On a budget
 * that several models share, rows for all tokens may have to wait here for one page's time of another model; nothing else
 * ever waits.
 *
 * `tokens`, `count`, `logits`, `embeddings`: as for `layerline_session_forward`; the tokens are copied.
 * `ticket`: set to a number that the event and `layerline_model_cancel` use; never 0. Another thread that polls may see
 * the event before this returns.
 *
 * Errors, all before anything is begun: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_CONTEXT_FULL;
 * LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for rows of all tokens; LAYERLINE_ERROR_BUSY when another call
 * or a submitted pass has the session, or too many events wait to be taken; LAYERLINE_ERROR_OUT_OF_MEMORY;
 * LAYERLINE_ERROR_UNSUPPORTED as for `layerline_session_forward`, and in a library built without threads of its own.
 * Statuses of the event: LAYERLINE_OK, LAYERLINE_ERROR_CANCELLED, LAYERLINE_ERROR_IO, LAYERLINE_ERROR_OUT_OF_MEMORY,
 * LAYERLINE_ERROR_INTERNAL. One thread at a time.
 */
layerline_status layerline_session_submit(layerline_session *session,
                                          const int32_t *tokens,
                                          size_t count,
                                          int32_t logits,
                                          int32_t embeddings,
                                          uint64_t *ticket,
                                          layerline_error **err);

/**
 * Ends the pass or generation of the session with LAYERLINE_ERROR_CANCELLED: one that runs within the time of one page,
 * a submitted one that waits for its turn at once. The session is then as before that pass. Where the thread of the pass
 * runs a sweep for passes of other sessions too, it returns when that sweep has ended.
 *
 * An interrupt is not lost: where no pass or generation is there, it ends the next one as soon as that begins
 * (`layerline_session_forward`, `layerline_session_submit` or `layerline_session_generate`). A call uses up all interrupts
 * that are raised before it ends, also one that came too late to end it. `layerline_session_clear_interrupt` takes back
 * those that no call has used up.
 *
 * NULL is a no-op. Any thread, also while another call on the session is running and from a `layerline_token_callback`.
 * Do not call it from a signal handler, because it takes a lock: let the handler wake a thread through a pipe.
 */
void layerline_session_interrupt(const layerline_session *session);

/**
 * Takes back interrupts that no call has used up, so that the next pass or generation runs: for a host that begins something
 * new and may have interrupted what was over already. Call it while no pass of the session runs or is submitted. NULL is a
 * no-op. Any thread.
 */
void layerline_session_clear_interrupt(const layerline_session *session);

/**
 * Tells how far the running pass of the session has come; set `progress->struct_size` before the call. Where none runs,
 * it tells of the last one; before the first, all is 0. Never waits.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. Any thread, also while another call on the session is running.
 */
layerline_status layerline_session_get_progress(const layerline_session *session,
                                                layerline_progress *progress,
                                                layerline_error **err);

/**
 * Gives the logits of one position of the last pass, before any softmax.
 *
 * `row`: 0 after a pass with LAYERLINE_LOGITS_LAST; the token's index in the pass after one with LAYERLINE_LOGITS_ALL.
 * `logits`: set to `*vocab_size` values that belong to the session and are valid until its next pass, truncation,
 * load or free.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the last pass has no such row; LAYERLINE_ERROR_BUSY while a pass runs or
 * is submitted. Any thread.
 */
layerline_status layerline_session_logits(const layerline_session *session,
                                          size_t row,
                                          const float **logits,
                                          size_t *vocab_size,
                                          layerline_error **err);

/**
 * Gives an embedding that the last pass left: a hidden state after the final norm, or a mean of some. It is not
 * normalised: divide it by its length where the model asks for that. Which pooling a file asks for is the metadata
 * `{architecture}.pooling_type`, for `layerline_model_metadata`: 0 none, 1 mean, 2 the first token, 3 the last one.
 *
 * `row`: the token's index in the pass after one with LAYERLINE_EMBEDDINGS_ALL; else 0.
 * `embedding`: set to `*length` values that belong to the session and are valid until its next pass, truncation, load
 * or free. The length is the `embedding_length` of `layerline_model_info`, or after LAYERLINE_EMBEDDINGS_SCORE the
 * number of the classifier's outputs.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the last pass has no such row; LAYERLINE_ERROR_BUSY while a pass runs or
 * is submitted. Any thread.
 */
layerline_status layerline_session_embeddings(const layerline_session *session,
                                              size_t row,
                                              const float **embedding,
                                              size_t *length,
                                              layerline_error **err);

/**
 * Forgets all tokens after the first `tokens`, so that the sequence can go on differently from there.
 *
 * A layer with a sliding window keeps little more than the window, and what it has dropped cannot be brought back. The
 * tokens of the last chunk (`layerline_options_set_chunk_length`) can always be forgotten, and so can all tokens. How far
 * back truncation goes otherwise is `fewest_tokens` of `layerline_session_info`. To go back farther, make a checkpoint
 * there: `layerline_session_checkpoint`.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the session holds fewer, or a layer has dropped what the next token would
 * see, and nothing changes; LAYERLINE_ERROR_BUSY while a pass runs or is submitted. One thread at a time.
 */
layerline_status layerline_session_truncate(layerline_session *session,
                                            size_t tokens,
                                            layerline_error **err);

/**
 * Keeps what the session has in common with the beginning of a list of tokens, and forgets the rest, so that the next turn
 * of a conversation costs its new tokens alone.
 *
 * `tokens`, `count`: all tokens of the conversation, of which the session may hold some.
 * `kept`: set to how many stay; the next pass, or the prompt of a generation, is to take in those after them. It is less than
 * `count`, so that a pass can leave the logits of the last one, unless the session holds just these tokens and the logits of
 * the last: then nothing is left to take in, and an empty prompt goes on from there.
 *
 * A session keeps what its layers can go back to, as `layerline_session_truncate` does: where that is less than what is
 * common, nothing stays and `kept` is 0. So a model with recurrent layers keeps all that it holds, or nothing: to go back to
 * a part, make a checkpoint there and restore it where `layerline_session_common_prefix` is not less than its position.
 * After loading a state that an earlier release has saved the session does not know its tokens, and nothing stays.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_UNSUPPORTED: each pass of the model is a sequence of its own;
 * LAYERLINE_ERROR_BUSY while a pass runs or is submitted. One thread at a time.
 */
layerline_status layerline_session_reuse_prefix(layerline_session *session,
                                                const int32_t *tokens,
                                                size_t count,
                                                size_t *kept,
                                                layerline_error **err);

/**
 * Tells how many tokens at the beginning of a list the session holds, whether or not it could go back to them: to choose
 * among sessions, or a checkpoint. 0 where the session does not know its tokens.
 *
 * `tokens`, `count`: may be none.
 * `common`: set to how many.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while a pass runs or is submitted. Any thread.
 */
layerline_status layerline_session_common_prefix(const layerline_session *session,
                                                 const int32_t *tokens,
                                                 size_t count,
                                                 size_t *common,
                                                 layerline_error **err);

/* -- adapters: low-rank changes of a model ------------------------------------------------------------------------- */

/**
 * A low-rank adapter (LoRA) of a model, in memory. It keeps the model alive. Sessions that have it keep what they need of
 * it, so that it may be freed before them; its memory is given back when the last one is gone.
 */
typedef struct layerline_adapter layerline_adapter;

/**
 * Reads an adapter of a model from a GGUF file, as llama.cpp's convert_lora_to_gguf.py makes it: `general.type` is
 * "adapter", `adapter.type` "lora", and each matrix X of the model that it changes has tensors X.lora_a and X.lora_b. They
 * stay in the file's formats.
 *
 * Adapted can be the matrices of attention, feed-forward and recurrent blocks, the output head, and the embeddings where
 * they are not the head as well; not experts, latent attention and norms: the error names the tensor.
 *
 * `path`: NUL-terminated; one file.
 * `adapter`: set to an adapter that the caller owns: `layerline_adapter_free`. Its memory is taken from the model's budget:
 * `layerline_adapter_memory_bytes`. The plan of a model does not know of it: leave so much more.
 *
 * It waits for storage, and for frames that must go for it, at most one page's time of a running pass.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT: no adapter, or one of another model or architecture, or of other shapes;
 * LAYERLINE_ERROR_NOT_FOUND: the model has no such matrix; LAYERLINE_ERROR_UNSUPPORTED; LAYERLINE_ERROR_FORMAT: malformed,
 * half of a pair is missing, or alpha is not a number; LAYERLINE_ERROR_MEMORY_BUDGET: it does not fit;
 * LAYERLINE_ERROR_IO; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
 */
layerline_status layerline_adapter_open(const layerline_model *model,
                                        const char *path,
                                        layerline_adapter **adapter,
                                        layerline_error **err);

/**
 * Reads an adapter of a model from storage of the host's own, as `layerline_adapter_open` does from a file.
 *
 * `source`: one file. It is not used any more when this returns.
 * `adapter`: as for `layerline_adapter_open`.
 *
 * Errors: those of `layerline_adapter_open`. Any thread.
 */
layerline_status layerline_adapter_open_source(const layerline_model *model,
                                               const layerline_source *source,
                                               layerline_adapter **adapter,
                                               layerline_error **err);

/** Frees an adapter; NULL is a no-op. Sessions that have it go on with it. Any thread, once. */
void layerline_adapter_free(layerline_adapter *adapter);

/** Returns the bytes that an adapter takes from the model's budget; 0 for NULL. Any thread. */
uint64_t layerline_adapter_memory_bytes(const layerline_adapter *adapter);

/**
 * Sets the adapters of a session, in place of those that it has. In all further passes the product of a matrix W that an
 * adapter changes becomes W·x + scale·(alpha / rank)·B·(A·x), x being what the product of W sees of its input, one adapter
 * after the other. Sessions that share a sweep may have different ones. The results are the same, bit for bit, whatever
 * the budget, the threads, the chunks and the company; without adapters they are those of the model alone.
 *
 * What the session holds stays as it was computed: tokens taken in before keep their keys and values. To have them anew,
 * `layerline_session_truncate` to 0. A copy of the session has the same adapters. A state does not contain them: set them
 * again after loading it.
 *
 * `adapters`: of the session's model. They may be freed afterwards.
 * `scales`: of each; 1 is what it was trained for, 0 leaves it out.
 * `count`: 0 takes all away.
 *
 * The products are made in memory from the model's budget, a few hundred KiB to a few MiB, for as long as the session has
 * adapters. Drafts of a model of their own come from that model, without adapters.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT: an adapter of another model, or a scale that is not a number;
 * LAYERLINE_ERROR_MEMORY_BUDGET; LAYERLINE_ERROR_OUT_OF_MEMORY; LAYERLINE_ERROR_BUSY while a pass runs or is submitted. The
 * session then has the adapters that it had. One thread at a time.
 */
layerline_status layerline_session_set_adapters(layerline_session *session,
                                                const layerline_adapter *const *adapters,
                                                const float *scales,
                                                size_t count,
                                                layerline_error **err);

/* -- batches: passes of several sessions in the same sweeps -------------------------------------------------------- */

/** What a session takes in within a batch, and how that ended. */
typedef struct layerline_batch_input {
    /** Set by the caller to sizeof(layerline_batch_input), the same in all inputs of an array. */
    uint32_t struct_size;
    /** One of LAYERLINE_LOGITS_: as for `layerline_session_forward`, like the following ones. */
    int32_t logits;
    /** One of LAYERLINE_EMBEDDINGS_. */
    int32_t embeddings;
    /** Set by the call: how the pass of this input ended. */
    layerline_status status;
    /** A session of the model, in no other input. */
    layerline_session *session;
    /** At least one token. */
    const int32_t *tokens;
    /** How many there are. */
    size_t count;
    /** Set by the call: NULL, or the error of this input, which the caller frees. */
    layerline_error *error;
} layerline_batch_input;

/**
 * Runs a pass of several sessions at once: every page of the weights is read, and fetched from memory, once for all of
 * them. As many tokens share a sweep as a chunk has (`layerline_options_set_chunk_length`); where there are more, all go on
 * in further sweeps. Each session has the results of `layerline_session_forward`, to the bit, whoever else takes part.
 *
 * Each input succeeds or fails by itself. A full context, an unknown token, a session that is busy, interrupted
 * (`layerline_session_interrupt`), NULL, of another model or in the array twice fails its own input, and the others run;
 * storage that fails fails all inputs of the sweep. The session of an input that failed is as it was before.
 *
 * `inputs`, `count`: the inputs; the call sets `status` and `error` of each. NULL goes with `count` 0, which does nothing.
 *
 * Returns LAYERLINE_OK when all inputs have succeeded; else the status of the first that has not, and `err` is its error
 * with its number in front. Where the array itself is refused, because it is NULL or a `struct_size` is wrong, that is
 * LAYERLINE_ERROR_INVALID_ARGUMENT, and no input is written.
 *
 * Errors: those of `layerline_session_forward`. One thread at a time for each of the sessions; other calls on the model may
 * run at once.
 */
layerline_status layerline_model_forward_batch(const layerline_model *model,
                                               layerline_batch_input *inputs,
                                               size_t count,
                                               layerline_error **err);

/* -- copying, saving and loading what a session holds -------------------------------------------------------------- */

/**
 * Begins a second sequence with the tokens of a first one, so that a prompt is run once and continued in many ways. The
 * two have nothing in common from then on: each may be changed and freed by itself. What the first one holds is copied,
 * and with it the logits of its last token where its last pass left some; they are row 0.
 *
 * `context_length`: tokens the copy can hold; 0: as many as the first one.
 * `copy`: set to a session that the caller owns: `layerline_session_free`. Its KV cache is taken from the model's budget.
 *
 * Errors: LAYERLINE_ERROR_CONTEXT_FULL when the first session holds more tokens than the copy could;
 * LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for its cache; LAYERLINE_ERROR_INVALID_ARGUMENT, also for a
 * context length at which the model rotates its keys by other angles; LAYERLINE_ERROR_UNSUPPORTED for an encoder, which
 * keeps nothing between passes; LAYERLINE_ERROR_BUSY while a pass of the first session runs or is submitted;
 * LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
 */
layerline_status layerline_session_copy(const layerline_session *session,
                                        uint32_t context_length,
                                        layerline_session **copy,
                                        layerline_error **err);

/**
 * Writes what a session holds to a file, so that `layerline_session_load` can go on from there at another time, in
 * another process: keys and values of its tokens, and the logits of the last one where the last pass left some. The
 * tokens themselves come along, embeddings do not, nor what samplers have seen.
 *
 * The file is written as `.layerline-*.tmp` beside its place, and gets its name when it is complete and on storage: what
 * had the name before is replaced whole, or stays. Only its owner can read it. It does not depend on the context length,
 * the budget, threads or the kind of machine.
 *
 * `path`: NUL-terminated, taken as bytes.
 *
 * Errors: LAYERLINE_ERROR_IO, also where the name belongs to something other than a regular file;
 * LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_UNSUPPORTED for an encoder, which keeps nothing between passes;
 * LAYERLINE_ERROR_BUSY while a pass runs or is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread; it waits for storage.
 */
layerline_status layerline_session_save(const layerline_session *session,
                                        const char *path,
                                        layerline_error **err);

/**
 * Replaces what a session holds by what `layerline_session_save` wrote. Going on from there gives the same bits as going
 * on in the session that was saved. The two may have different context lengths.
 *
 * The file must be of the same model: the same architecture and hyper-parameters, vocabulary, tensors and quantisation,
 * and the same bytes in a sample of the weights; which files hold the model does not matter. A model that differs from
 * it in a few tensors only may be taken for the same.
 *
 * `path`: NUL-terminated, taken as bytes.
 *
 * After an error the session is as it was before. For that the file is read twice, first to check it all, and what the
 * session holds is copied meanwhile, into memory of the model's budget. An empty session needs none. Checkpoints of what
 * the session held are lost.
 *
 * Errors: LAYERLINE_ERROR_IO, also when the file changes while it is read; LAYERLINE_ERROR_FORMAT when it is not a state,
 * cut short or damaged; LAYERLINE_ERROR_UNSUPPORTED when another version of the library wrote it in a form that this one
 * does not know, and for an encoder; LAYERLINE_ERROR_INVALID_ARGUMENT when it is of another model, of another LAYERLINE_KV_
 * type, or of a context length at which the model rotates its keys by other angles; LAYERLINE_ERROR_CONTEXT_FULL when it
 * holds more tokens than the session can; LAYERLINE_ERROR_MEMORY_BUDGET when the budget has no room for the copy;
 * LAYERLINE_ERROR_BUSY when another call on the session is running or a pass is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY.
 * One thread at a time; it waits for storage.
 */
layerline_status layerline_session_load(layerline_session *session,
                                        const char *path,
                                        layerline_error **err);

/**
 * Writes what a session holds to memory of the caller, for `layerline_session_load_buffer`: the bytes that a file of
 * `layerline_session_save` would have.
 *
 * `buf`, `cap`: where the bytes are written; NULL with 0 asks for their count.
 * `needed`: set to the count of bytes, also when there is no room for them. It changes with the position of the session.
 *
 * Errors: LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_UNSUPPORTED for an encoder;
 * LAYERLINE_ERROR_BUSY while a pass runs or is submitted; LAYERLINE_ERROR_IO when the model's own file cannot be read, of
 * which the first state saved or loaded reads a sample; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
 */
layerline_status layerline_session_save_buffer(const layerline_session *session,
                                               uint8_t *buf,
                                               size_t cap,
                                               size_t *needed,
                                               layerline_error **err);

/**
 * Replaces what a session holds by a state in memory, which `layerline_session_save_buffer` or `layerline_session_save`
 * wrote. What is said of `layerline_session_load` holds here, but that nothing is copied.
 *
 * `state`, `length`: all bytes of the state. They must not change during the call.
 *
 * Errors: those of `layerline_session_load`, but LAYERLINE_ERROR_MEMORY_BUDGET; LAYERLINE_ERROR_IO is for the model's own
 * file, of which the first state saved or loaded reads a sample. One thread at a time.
 */
layerline_status layerline_session_load_buffer(layerline_session *session,
                                               const uint8_t *state,
                                               size_t length,
                                               layerline_error **err);

/* -- checkpoints: going back where truncation cannot --------------------------------------------------------------- */

/**
 * A point of a session that `layerline_session_restore` can go back to where `layerline_session_truncate` cannot. It keeps
 * the model alive, not the session, which may be freed before it.
 */
typedef struct layerline_checkpoint layerline_checkpoint;

/**
 * Keeps the point where a session is now, so that it can go on from there again. It holds a copy of what layers with a
 * sliding window will have dropped later. For a model without such layers it holds next to nothing, and restoring is
 * truncation.
 *
 * `checkpoint`: set to a checkpoint that the caller owns: `layerline_checkpoint_free`. Its memory is taken from the model's
 * budget until it is freed: of each layer with a window at most the window.
 *
 * Errors: LAYERLINE_ERROR_MEMORY_BUDGET; LAYERLINE_ERROR_UNSUPPORTED for an encoder, which keeps nothing between passes;
 * LAYERLINE_ERROR_BUSY while a pass runs or is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY; LAYERLINE_ERROR_INVALID_ARGUMENT.
 * One thread at a time.
 */
layerline_status layerline_session_checkpoint(layerline_session *session,
                                              layerline_checkpoint **checkpoint,
                                              layerline_error **err);

/**
 * Frees a checkpoint, and gives its memory back to the model's budget; NULL is a no-op. The session is not affected. Any
 * thread, once, with no call on the checkpoint running.
 */
void layerline_checkpoint_free(layerline_checkpoint *checkpoint);

/** Returns how many tokens the session held when the checkpoint was made; 0 for NULL. Cannot fail; any thread. */
uint64_t layerline_checkpoint_position(const layerline_checkpoint *checkpoint);

/** Returns the bytes that the checkpoint takes from the model's budget; 0 for NULL. Cannot fail; any thread. */
uint64_t layerline_checkpoint_memory_bytes(const layerline_checkpoint *checkpoint);

/**
 * Goes back to a checkpoint of this session. It can be done any number of times. Where the session holds more tokens, they
 * are forgotten, and the rows of the last pass with them; checkpoints of later positions are then lost: they can only be
 * freed.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the checkpoint is of another session, or lost, because the session was
 * truncated to fewer tokens, restored to an earlier checkpoint or loaded since; nothing changes then.
 * LAYERLINE_ERROR_BUSY while a pass runs or is submitted. One thread at a time for the session; any for the checkpoint.
 */
layerline_status layerline_session_restore(layerline_session *session,
                                           const layerline_checkpoint *checkpoint,
                                           layerline_error **err);

/* -- text ---------------------------------------------------------------------------------------------------------- */

/** Recognise control tokens in the text: for templates, never for users' text. */
#define LAYERLINE_TOKENIZE_SPECIAL 1

/** Add the beginning token where the model wants one. */
#define LAYERLINE_TOKENIZE_BOS 2

/**
 * Add the ending token where the model wants one: for a complete text, as encoders take it, never for a text that is to
 * be continued.
 */
#define LAYERLINE_TOKENIZE_EOS 4

/** The text goes on another: the space that some tokenisers, SentencePiece's above all, put before a text is left out. */
#define LAYERLINE_TOKENIZE_CONTINUE 8

/**
 * Give control, unknown and unused tokens the text of their names, such as "<|im_end|>", in place of none: to tell apart
 * the parts of an answer, such as what gpt-oss thinks and what it says.
 */
#define LAYERLINE_DETOKENIZE_CONTROL 1

/** The tokens go on a text: the space that the tokeniser puts before every text is not left out. */
#define LAYERLINE_DETOKENIZE_CONTINUE 2

/** The token steers the model: it begins or ends a text or a turn, or marks a role. It has no text in an answer. */
#define LAYERLINE_TOKEN_CONTROL 1

/** The token ends a text or a turn: generation stops at it. */
#define LAYERLINE_TOKEN_END 2

/** The token stands for one byte, which may be part of a character. */
#define LAYERLINE_TOKEN_BYTE 4

/** The token was added by the maker of the model and is recognised in any text as it is written. */
#define LAYERLINE_TOKEN_USER_DEFINED 8

/** The token stands for text that the vocabulary does not have. */
#define LAYERLINE_TOKEN_UNKNOWN 16

/** The vocabulary marks the token as unused. */
#define LAYERLINE_TOKEN_UNUSED 32

/**
 * Turns text into tokens.
 *
 * `text`, `length`: UTF-8, `length` bytes; it need not end in NUL. A byte that is in no character becomes the token of
 * that byte, where the vocabulary has one.
 * `flags`: LAYERLINE_TOKENIZE_ values or-ed together.
 * `tokens`, `cap`: where the tokens are written; NULL with 0 asks for their count.
 * `needed`: set to the count of tokens, also when there is no room for them.
 *
 * Outside the budget a call takes at most 1 MiB, 4 bytes for each byte of the text, one more where the tokeniser brings
 * text to a normal form first, and 12 for each token.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for unknown flags and for text that is not UTF-8 where the vocabulary has
 * no bytes; LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_UNSUPPORTED when the model has no tokeniser or one that is
 * not built in; LAYERLINE_ERROR_FORMAT when it is malformed. Any thread.
 */
layerline_status layerline_model_tokenize(const layerline_model *model,
                                          const char *text,
                                          size_t length,
                                          uint32_t flags,
                                          int32_t *tokens,
                                          size_t cap,
                                          size_t *needed,
                                          layerline_error **err);

/**
 * Turns a sequence of tokens into the bytes of its text; control tokens have none. A sequence may end inside a
 * character: then so does the text. A space that the tokeniser puts before every text is left out, which is right for a
 * whole sequence and wrong for parts of one that are to be joined: `layerline_model_detokenize_with` keeps it.
 *
 * To print tokens as they come, in whole characters, use a layerline_detokenizer. `layerline_session_generate` gives
 * whole characters itself.
 *
 * `tokens`, `count`: may be none.
 * `buf`, `cap`, `needed`: the text, as described for strings at the top.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_BUFFER_TOO_SMALL;
 * LAYERLINE_ERROR_UNSUPPORTED and LAYERLINE_ERROR_FORMAT as for `layerline_model_tokenize`. Any thread.
 */
layerline_status layerline_model_detokenize(const layerline_model *model,
                                            const int32_t *tokens,
                                            size_t count,
                                            char *buf,
                                            size_t cap,
                                            size_t *needed,
                                            layerline_error **err);

/**
 * As `layerline_model_detokenize`, with flags.
 *
 * `flags`: LAYERLINE_DETOKENIZE_ values or-ed together.
 * `tokens`, `count`, `buf`, `cap`, `needed`: as for `layerline_model_detokenize`.
 *
 * Errors: those of `layerline_model_detokenize`; LAYERLINE_ERROR_INVALID_ARGUMENT also for unknown flags. Any thread.
 */
layerline_status layerline_model_detokenize_with(const layerline_model *model,
                                                 const int32_t *tokens,
                                                 size_t count,
                                                 uint32_t flags,
                                                 char *buf,
                                                 size_t cap,
                                                 size_t *needed,
                                                 layerline_error **err);

/**
 * Gives the bytes that one token adds to a text that goes on, and what the token is. The bytes may be part of a
 * character, and may hold NULs. A control, unknown or unused token has the bytes of its name, such as "<|im_end|>", which
 * `layerline_model_detokenize` leaves out.
 *
 * `buf`, `cap`, `needed`: the bytes, as described for strings at the top.
 * `attributes`: set to LAYERLINE_TOKEN_ values or-ed together, also when there is no room for the bytes.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_BUFFER_TOO_SMALL;
 * LAYERLINE_ERROR_UNSUPPORTED and LAYERLINE_ERROR_FORMAT as for `layerline_model_tokenize`. Any thread.
 */
layerline_status layerline_model_token_text(const layerline_model *model,
                                            int32_t token,
                                            char *buf,
                                            size_t cap,
                                            size_t *needed,
                                            uint32_t *attributes,
                                            layerline_error **err);

/**
 * Tells whether a token ends a text or a turn: sets `end`.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have; LAYERLINE_ERROR_UNSUPPORTED and
 * LAYERLINE_ERROR_FORMAT as for `layerline_model_tokenize`. Any thread.
 */
layerline_status layerline_model_token_is_end(const layerline_model *model,
                                              int32_t token,
                                              bool *end,
                                              layerline_error **err);

/* -- tokens to text as they come ----------------------------------------------------------------------------------- */

/**
 * Turns tokens into text as they come, for programs with a loop of their own: what it hands out is whole UTF-8
 * characters. It belongs to one text at a time and keeps the model alive. Its memory, under a hundred bytes, is outside
 * every budget.
 */
typedef struct layerline_detokenizer layerline_detokenizer;

/**
 * Makes a detokeniser for the tokens of a model.
 *
 * `flags`: LAYERLINE_DETOKENIZE_ values or-ed together. For what a model adds to a prompt, LAYERLINE_DETOKENIZE_CONTINUE.
 * `detokenizer`: set to a detokeniser that the caller owns: `layerline_detokenizer_free`.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for unknown flags; LAYERLINE_ERROR_UNSUPPORTED and
 * LAYERLINE_ERROR_FORMAT as for `layerline_model_tokenize`. Any thread.
 */
layerline_status layerline_detokenizer_new(const layerline_model *model,
                                           uint32_t flags,
                                           layerline_detokenizer **detokenizer,
                                           layerline_error **err);

/** Frees a detokeniser; NULL is a no-op. Any thread, once. */
void layerline_detokenizer_free(layerline_detokenizer *detokenizer);

/**
 * Takes tokens and gives the text that became whole with them, often none or more than that of the last. Bytes that can
 * never become a character come as U+FFFD.
 *
 * `tokens`, `count`: may be none.
 * `buf`, `cap`, `needed`: the text, as described for strings at the top. Where it has no room, the tokens are not taken.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token the model does not have: then none is taken;
 * LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_BUSY while another call on the detokeniser runs. One thread at a time.
 */
layerline_status layerline_detokenizer_push(layerline_detokenizer *detokenizer,
                                            const int32_t *tokens,
                                            size_t count,
                                            char *buf,
                                            size_t cap,
                                            size_t *needed,
                                            layerline_error **err);

/**
 * Ends a text: gives U+FFFD where it ends inside a character, else nothing. The next token begins another text.
 *
 * `buf`, `cap`, `needed`: the text, as described for strings at the top. Where it has no room, the text has not ended.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_BUSY while another call on
 * the detokeniser runs. One thread at a time.
 */
layerline_status layerline_detokenizer_finish(layerline_detokenizer *detokenizer,
                                              char *buf,
                                              size_t cap,
                                              size_t *needed,
                                              layerline_error **err);

/* -- chat templates ------------------------------------------------------------------------------------------------ */

/** One message of a conversation. */
typedef struct layerline_message {
    /** Who speaks, as the model's template calls it: "system", "user", "assistant", "tool". NUL-terminated UTF-8. */
    const char *role;
    /** What is said. NUL-terminated UTF-8, may be empty. */
    const char *content;
} layerline_message;

/**
 * Gives the text of a conversation, by the template that comes with the model.
 *
 * `messages`, `count`: in the order in which they were said. The template decides which roles there are and whether they
 * must alternate.
 * `add_assistant`: end where the assistant's answer begins, which is then to be generated.
 * `buf`, `cap`, `needed`: the text, as described for strings at the top.
 *
 * The text is to be tokenised with LAYERLINE_TOKENIZE_SPECIAL and without LAYERLINE_TOKENIZE_BOS: templates spell the
 * beginning token where the model wants it. Control tokens that a message spells, such as "<|im_end|>" in what a user
 * typed, are recognised like the template's own, so that a user could speak for the system. For text from outside use
 * `layerline_model_tokenize_chat`, where the text of messages stays text.
 *
 * A template is rendered as the `transformers` package does it, so that the model sees what it was trained with. The
 * same messages give the same text, except for templates that ask for the date, which is that of UTC. A call parses the
 * template, takes at most a second, 128 MiB and 512 KiB of stack whatever the template does, mostly a millisecond and
 * little more than the text, and frees all of it. Each further MiB of messages allows for as much again. The text has at
 * most 2 MiB and 16 bytes for each of the messages.
 *
 * Errors: LAYERLINE_ERROR_NOT_FOUND when the model has no template; LAYERLINE_ERROR_UNSUPPORTED when it uses a function
 * that is not built in; LAYERLINE_ERROR_INVALID_ARGUMENT, also for messages that the template refuses or fails on, in its
 * words;
 * LAYERLINE_ERROR_FORMAT for a template that cannot be parsed or goes beyond its bounds;
 * LAYERLINE_ERROR_BUFFER_TOO_SMALL. Any thread.
 */
layerline_status layerline_model_format_chat(const layerline_model *model,
                                             const layerline_message *messages,
                                             size_t count,
                                             bool add_assistant,
                                             char *buf,
                                             size_t cap,
                                             size_t *needed,
                                             layerline_error **err);

/**
 * Gives the text of a conversation that is more than roles and contents: with tools, tool calls, documents, names.
 *
 * `json`, `length`: a JSON object in UTF-8. Its members become the template's variables, as they are, also integers of any
 * length:
 *   "messages"    required: an array of objects, most with "role" and "content". What else a message has, such as
 *                 "tool_calls", "tool_call_id", "name" or "reasoning_content", the template finds in it; members that
 *                 are null count as absent, unless the template fails without them. Arguments of tool calls that are
 *                 JSON text are read where the template fails on text.
 *   "tools"       an array: tools the model may call, each {"type": "function", "function": {"name": …, "description":
 *                 …, "parameters": a JSON schema}}. A template for tools is taken where the model has one.
 *   "documents"   an array of objects, for templates that know them.
 *   any other     what the template asks for: "enable_thinking", "reasoning_effort". "bos_token" and the like replace
 *                 the texts of the model's own tokens.
 * `add_assistant`, `buf`, `cap`, `needed`: as for `layerline_model_format_chat`, and what is said there holds here.
 *
 * Errors: those of `layerline_model_format_chat`; LAYERLINE_ERROR_INVALID_ARGUMENT says where the JSON is wrong. Any thread.
 */
layerline_status layerline_model_format_chat_json(const layerline_model *model,
                                                  const char *json,
                                                  size_t length,
                                                  bool add_assistant,
                                                  char *buf,
                                                  size_t cap,
                                                  size_t *needed,
                                                  layerline_error **err);

/**
 * Gives the tokens of a conversation: those of the text of `layerline_model_format_chat`, except that control tokens are
 * recognised only where the template spells them. In the text of messages they stay text, so that a message cannot speak
 * for another role.
 * (A template that looks for control tokens inside a message does not find them.)
 * Beside what rendering takes, a call takes the memory of `layerline_model_tokenize` for the text.
 *
 * `messages`, `count`, `add_assistant`: as for `layerline_model_format_chat`.
 * `tokens`, `cap`, `needed`: the tokens, as for `layerline_model_tokenize`.
 *
 * Errors: those of `layerline_model_format_chat` and of `layerline_model_tokenize`. Any thread.
 */
layerline_status layerline_model_tokenize_chat(const layerline_model *model,
                                               const layerline_message *messages,
                                               size_t count,
                                               bool add_assistant,
                                               int32_t *tokens,
                                               size_t cap,
                                               size_t *needed,
                                               layerline_error **err);

/**
 * Gives the tokens of a conversation given as for `layerline_model_format_chat_json`, with control tokens as for
 * `layerline_model_tokenize_chat`: none in any string of the JSON is recognised, tools and documents included.
 *
 * `json`, `length`, `add_assistant`: as for `layerline_model_format_chat_json`.
 * `tokens`, `cap`, `needed`: the tokens, as for `layerline_model_tokenize`.
 *
 * Errors: those of `layerline_model_format_chat_json` and of `layerline_model_tokenize`. Any thread.
 */
layerline_status layerline_model_tokenize_chat_json(const layerline_model *model,
                                                    const char *json,
                                                    size_t length,
                                                    bool add_assistant,
                                                    int32_t *tokens,
                                                    size_t cap,
                                                    size_t *needed,
                                                    layerline_error **err);

/* -- what models write: answers, reasoning, tool calls ------------------------------------------------------------- */

/** More of the answer. */
#define LAYERLINE_PART_CONTENT 0

/** More of what the model thinks before it answers. */
#define LAYERLINE_PART_REASONING 1

/** A tool call begins: `text` is its name. */
#define LAYERLINE_PART_CALL 2

/** More of the arguments of a call: JSON, where the model makes no mistake. */
#define LAYERLINE_PART_ARGUMENTS 3

/** A tool call is complete. */
#define LAYERLINE_PART_CALL_END 4

/**
 * Turns what a model writes into messages: what it says, what it thinks, and the tools it calls. It belongs to one
 * message at a time. Its memory, a few times that of the message, is outside every budget.
 *
 * The text may be cut anywhere: the parts are the same. Nothing is refused: what is not a call after all is content,
 * arguments that are not JSON stay as they are written, and what is open at the end ends there. White space around marks
 * is left out, and so are members of a call that have no meaning here. Time and memory grow with the text and no faster.
 *
 * Some formats mark calls by control tokens: deepseek, harmony, kimi and mistral, and llama3 in part. The text must have
 * them: `layerline_sampler_set_show_control`, LAYERLINE_DETOKENIZE_CONTROL.
 */
typedef struct layerline_message_parser layerline_message_parser;

/** A part of a message. */
typedef struct layerline_message_part {
    /** Set by the caller to sizeof(layerline_message_part) before the call. */
    uint32_t struct_size;
    /** A LAYERLINE_PART_ value. */
    uint32_t kind;
    /** Which call of the message, from 0; 0 for other parts. */
    uint32_t call;
    /** Always 0. */
    uint32_t reserved;
    /** UTF-8 of `length` bytes, without a NUL: text, a name, or nothing. Valid until the next call on the parser. */
    const char *text;
    /** Bytes of `text`. */
    size_t length;
    /** Of a call: what its result names it by, the model's own or one of nine letters and digits. As `text`. */
    const char *id;
    /** Bytes of `id`; 0 for what is no call. */
    size_t id_length;
} layerline_message_part;

/**
 * Makes a parser for what a model writes.
 *
 * `model`: its chat template tells the format; NULL where `format` names it. It is not kept.
 * `format`: NULL, or one of "hermes" (also Qwen 2.5 and 3), "qwen3-coder" (also Qwen 3.5), "llama3", "mistral", "deepseek",
 * "harmony" (gpt-oss), "glm", "kimi", "minimax", and "plain", which has reasoning alone. A template that is of none of
 * these families makes it "plain".
 * `tools`, `length`: the JSON array "tools" of the conversation, or NULL and 0. "qwen3-coder", "glm" and "minimax" write
 * strings without quotes: from the schemas the parser knows which arguments are strings. Without them "12" is a number.
 * `parser`: set to a parser that the caller owns: `layerline_message_parser_free`. It is ready for a message.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also where `tools` is not a JSON array, and where neither a model nor a format
 * is given; LAYERLINE_ERROR_NOT_FOUND: no format has the name; LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
 */
layerline_status layerline_message_parser_new(const layerline_model *model,
                                              const char *format,
                                              const char *tools,
                                              size_t length,
                                              layerline_message_parser **parser,
                                              layerline_error **err);

/** Frees a parser; NULL is a no-op. Any thread, once. */
void layerline_message_parser_free(layerline_message_parser *parser);

/** Returns the name of the format; "" for NULL. Any thread. */
const char *layerline_message_parser_format(const layerline_message_parser *parser);

/**
 * Begins another message, and forgets the last.
 *
 * `prompt`, `length`: the text that the message answers, as `layerline_model_format_chat` gives it, or its last bytes, or
 * NULL and 0: some templates end it inside the reasoning, which the parser must know.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the parser runs. One thread at a
 * time.
 */
layerline_status layerline_message_parser_begin(layerline_message_parser *parser,
                                                const char *prompt,
                                                size_t length,
                                                layerline_error **err);

/**
 * Takes more of the text. Then `layerline_message_parser_next` gives the parts.
 *
 * `text`, `length`: cut anywhere, also inside a character. Bytes that can never become one become U+FFFD.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also when the message has ended; LAYERLINE_ERROR_OUT_OF_MEMORY: begin another
 * message; LAYERLINE_ERROR_BUSY while another call on the parser runs. One thread at a time.
 */
layerline_status layerline_message_parser_feed(layerline_message_parser *parser,
                                               const char *text,
                                               size_t length,
                                               layerline_error **err);

/**
 * Ends the message: what was kept back becomes parts.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_OUT_OF_MEMORY; LAYERLINE_ERROR_BUSY while another call on the
 * parser runs. One thread at a time.
 */
layerline_status layerline_message_parser_finish(layerline_message_parser *parser,
                                                 layerline_error **err);

/**
 * Gives the next part of what has been fed.
 *
 * `part`: filled; its texts are valid until the next call on the parser.
 *
 * Returns whether there was one: false until more is fed, and for NULL. One thread at a time.
 */
bool layerline_message_parser_next(layerline_message_parser *parser, layerline_message_part *part);

/**
 * Gives the message so far as JSON: {"role": "assistant", "content": …, "reasoning_content": …, "tool_calls": [{"id": …,
 * "type": "function", "function": {"name": …, "arguments": …}}]}, the last two members where there are any. Arguments
 * are an object, or text where they are not one. So it goes on the "messages" of `layerline_model_format_chat_json`.
 *
 * `buf`, `cap`, `needed`: the text, as described for strings at the top.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_BUSY while another call on
 * the parser runs. One thread at a time.
 */
layerline_status layerline_message_parser_message(const layerline_message_parser *parser,
                                                  char *buf,
                                                  size_t cap,
                                                  size_t *needed,
                                                  layerline_error **err);

/* -- sampling and generation --------------------------------------------------------------------------------------- */

/**
 * Chooses tokens for one sequence: greedy by default, and of equal logits the lowest token.
 *
 * Its steps and their order are llama.cpp's, each on what the one before left: logit biases, penalties, DRY, top-n-sigma,
 * top-k, typical, top-p, min-p, XTC, temperature, draw; `layerline_sampler_set_steps` changes the order. Those before the
 * temperature look at probabilities without it. All but the draw do nothing until they are set. Logits that are NaN are
 * never chosen. The same seed, settings and logits give the same tokens on one platform.
 *
 * Penalties look at the tokens that this sampler chose, at the prompts given to `layerline_session_generate`, and
 * at what `layerline_sampler_accept` shows; not at what was given to `layerline_session_forward`.
 *
 * What it needs to choose by a session's logits is part of the session's memory. Its own memory belongs to no model and is
 * outside every budget: a few hundred bytes, 4 for each token that penalties look at, and 16 for each logit once
 * `layerline_sampler_sample_logits` has made a choice that is not greedy.
 */
typedef struct layerline_sampler layerline_sampler;

/**
 * Gets each generated token, on the thread that called `layerline_session_generate`; false stops.
 *
 * `token`: what was sampled.
 * `piece`, `length`: the text that became whole with it, whole UTF-8 characters; `length` 0 where the token ends inside
 * one, and for control tokens, unless `layerline_sampler_set_show_control` asks for theirs. Not NUL-terminated; valid
 * during the call.
 * `user_data`: as given to `layerline_session_generate`.
 *
 * It must return: no C++ exception and no longjmp may leave it. Of the functions on this session and sampler it may call
 * only `layerline_session_interrupt`; others return LAYERLINE_ERROR_BUSY, and free is not allowed.
 */
typedef bool (*layerline_token_callback)(int32_t token, const char *piece, size_t length, void *user_data);

/** Makes a greedy sampler. The caller owns it: `layerline_sampler_free`. NULL when there is no memory. Any thread. */
layerline_sampler *layerline_sampler_new(void);

/** Frees a sampler; NULL is a no-op. Any thread, once, with no call on the sampler running. */
void layerline_sampler_free(layerline_sampler *sampler);

/**
 * Sets what logits are divided by before the draw. 0, the default: greedy, where only the repeat penalty counts.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is negative or not finite. One thread at a time.
 */
layerline_status layerline_sampler_set_temperature(layerline_sampler *sampler, float temperature);

/**
 * Keeps only the `k` likeliest tokens. 0, the default: all.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_sampler_set_top_k(layerline_sampler *sampler, uint32_t k);

/**
 * Keeps only the fewest likeliest tokens whose probabilities sum to `p`, at least one. 1, the default: all.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not from 0 to 1. One thread at a time.
 */
layerline_status layerline_sampler_set_top_p(layerline_sampler *sampler, float p);

/**
 * Keeps only tokens at least `p` times as probable as the likeliest. 0, the default: all.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not from 0 to 1. One thread at a time.
 */
layerline_status layerline_sampler_set_min_p(layerline_sampler *sampler, float p);

/**
 * Makes tokens among the last `last_n` less likely: their logits are divided by `penalty` where positive, multiplied by
 * it where not. Penalty 1, the default: none. Forgets the tokens seen so far.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when `penalty` is not above 0 and finite. One thread at a time.
 */
layerline_status layerline_sampler_set_repeat_penalty(layerline_sampler *sampler,
                                                      float penalty,
                                                      uint32_t last_n);

/**
 * Lets `layerline_session_generate` give its callback the text of control, unknown and unused tokens, such as
 * "<|channel|>", which else have none: to tell apart the parts of an answer.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_sampler_set_show_control(layerline_sampler *sampler, bool show);

/**
 * Starts the random sequence anew from `seed`. The default is 0.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_sampler_set_seed(layerline_sampler *sampler, uint64_t seed);

/**
 * Copies a sampler: its settings, the tokens it has seen, its place in the random sequence. The two have nothing in common
 * from then on.
 *
 * `copy`: set to a sampler that the caller owns: `layerline_sampler_free`.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call changes the sampler. Any thread.
 */
layerline_status layerline_sampler_copy(const layerline_sampler *sampler,
                                        layerline_sampler **copy,
                                        layerline_error **err);

/**
 * Forgets the tokens seen so far and starts the random sequence anew from the seed, as a new sequence wants it. Settings
 * stay.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the sampler runs. One thread at a
 * time.
 */
layerline_status layerline_sampler_reset(layerline_sampler *sampler,
                                         layerline_error **err);

/**
 * Shows the sampler tokens of its sequence that it did not choose, such as a prompt, for the repeat penalty.
 *
 * `tokens`, `count`: in their order; may be none.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also for a token below 0; LAYERLINE_ERROR_BUSY while another call on the sampler
 * runs; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
 */
layerline_status layerline_sampler_accept(layerline_sampler *sampler,
                                          const int32_t *tokens,
                                          size_t count,
                                          layerline_error **err);

/**
 * Chooses a token by the logits of the last position of the session's last pass, and remembers it for the repeat
 * penalty. It is not fed to the session: give it to `layerline_session_forward`.
 *
 * `token`: set to the token chosen; it may be one that ends the text (`layerline_model_token_is_end`).
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when the session has no logits; LAYERLINE_ERROR_FORMAT when no logit is a
 * number; LAYERLINE_ERROR_BUSY while a pass runs or is submitted; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time for
 * the sampler; any for the session, whose samplers take turns.
 */
layerline_status layerline_sampler_sample(layerline_sampler *sampler,
                                          const layerline_session *session,
                                          int32_t *token,
                                          layerline_error **err);

/**
 * Chooses a token by given logits, and remembers it for the repeat penalty: for hosts that change logits first, or take
 * those of an earlier position.
 *
 * `logits`, `count`: one for each token of the vocabulary; at least one.
 * `token`: set to the token chosen.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also when no logit is a number; LAYERLINE_ERROR_BUSY while another call on the
 * sampler runs; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
 */
layerline_status layerline_sampler_sample_logits(layerline_sampler *sampler,
                                                 const float *logits,
                                                 size_t count,
                                                 int32_t *token,
                                                 layerline_error **err);

/**
 * Runs a prompt and generates tokens, each given to the callback and fed back. Ends with LAYERLINE_OK after a token
 * that ends the text, after `max_tokens`, or when the callback returns false.
 *
 * `prompt`, `count`: may be none: then it goes on from the logits of the session's last pass, which must have some.
 * `max_tokens`: the most tokens to sample; with 0 only the prompt is run.
 * `callback`, `user_data`: see `layerline_token_callback`. A token that ends the text is not passed on; only where it
 * cuts a character short, it comes with the replacement character, as does the last of `max_tokens`.
 *
 * The last token sampled is not fed to the session, all before it are: to go on later, begin the next prompt with it.
 * Where a token has ended the text, all that the callback was given have been fed. The position of the session tells which
 * is the case: `layerline_session_get_info`.
 *
 * Errors: those of `layerline_session_forward` and `layerline_sampler_sample`; LAYERLINE_ERROR_CONTEXT_FULL after as many
 * tokens as fitted; LAYERLINE_ERROR_CANCELLED by `layerline_session_interrupt`, also between two passes and before the call;
 * LAYERLINE_ERROR_UNSUPPORTED when the model has no tokeniser that is built in. Tokens passed on before an error stay in
 * the session, but for the last. One thread at a time.
 */
layerline_status layerline_session_generate(layerline_session *session,
                                            layerline_sampler *sampler,
                                            const int32_t *prompt,
                                            size_t count,
                                            size_t max_tokens,
                                            layerline_token_callback callback,
                                            void *user_data,
                                            layerline_error **err);

/* -- more of a sampler's chain ------------------------------------------------------------------------------------- */

/** A step of the chain: repeat, frequency and presence penalty. */
#define LAYERLINE_STEP_PENALTIES 0

/** A step of the chain: `layerline_sampler_set_dry`. */
#define LAYERLINE_STEP_DRY 1

/** A step of the chain: `layerline_sampler_set_top_n_sigma`. */
#define LAYERLINE_STEP_TOP_N_SIGMA 2

/** A step of the chain: `layerline_sampler_set_top_k`. */
#define LAYERLINE_STEP_TOP_K 3

/** A step of the chain: `layerline_sampler_set_typical_p`. */
#define LAYERLINE_STEP_TYPICAL_P 4

/** A step of the chain: `layerline_sampler_set_top_p`. */
#define LAYERLINE_STEP_TOP_P 5

/** A step of the chain: `layerline_sampler_set_min_p`. */
#define LAYERLINE_STEP_MIN_P 6

/** A step of the chain: `layerline_sampler_set_xtc`. */
#define LAYERLINE_STEP_XTC 7

/** A step of the chain: `layerline_sampler_set_temperature` and `layerline_sampler_set_dynamic_temperature`. */
#define LAYERLINE_STEP_TEMPERATURE 8

/**
 * Keeps the fewest tokens whose probabilities sum to more than `p`, beginning with those whose information is nearest to the
 * entropy of all. 1, the default: all.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not from 0 to 1. One thread at a time.
 */
layerline_status layerline_sampler_set_typical_p(layerline_sampler *sampler,
                                                 float p);

/**
 * Keeps tokens whose logits are at most `n` standard deviations of all logits below the greatest. 0, the default: all.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is negative or not finite. One thread at a time.
 */
layerline_status layerline_sampler_set_top_n_sigma(layerline_sampler *sampler, float n);

/**
 * Leaves out, with this probability, the tokens at least as probable as `threshold` but for the least probable of them, where
 * there are two or more. Probability 0, the default: never; so with a threshold above 0.5.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when one is not from 0 to 1. One thread at a time.
 */
layerline_status layerline_sampler_set_xtc(layerline_sampler *sampler,
                                           float probability,
                                           float threshold);

/**
 * Lets the temperature go as far as `range` below and above what is set, never below 0: low where the model is certain, high
 * where it is not. Range 0, the default: it stays. `exponent`, 1 by default: above 1 it stays low for longer.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when one is negative or not finite. One thread at a time.
 */
layerline_status layerline_sampler_set_dynamic_temperature(layerline_sampler *sampler,
                                                           float range,
                                                           float exponent);

/**
 * Chooses by Mirostat 2: tokens that would be too surprising are left out, so that what is chosen comes to a surprise of `tau`
 * bits, by steps of `eta` of what is missing. Of the chain only logit biases and the temperature count then. `tau` 0, the default: off;
 * usual are 5 and 0.1.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when one is negative or not finite. One thread at a time.
 */
layerline_status layerline_sampler_set_mirostat(layerline_sampler *sampler,
                                                float tau,
                                                float eta);

/**
 * Takes `penalty` off the logit of a token for each time that it is among the last ones, as many as
 * `layerline_sampler_set_repeat_penalty` says, 64 by default. 0, the default: nothing; below 0 it is added.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not finite. One thread at a time.
 */
layerline_status layerline_sampler_set_frequency_penalty(layerline_sampler *sampler, float penalty);

/**
 * Takes `penalty` off the logit of a token that is among the last ones, once. 0, the default: nothing; below 0 it is added.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when it is not finite. One thread at a time.
 */
layerline_status layerline_sampler_set_presence_penalty(layerline_sampler *sampler,
                                                        float penalty);

/**
 * Sets DRY: a token that would go on with a sequence of `allowed_length` tokens or more that stands before, among the last
 * `last_n`, loses `multiplier` times `base` to the power of the sequence's length less `allowed_length`. Multiplier 0, the default:
 * off; usual are 0.8, 1.75 and 2. The sampler keeps 4 bytes for each of the `last_n`, and takes some 24 more while it chooses.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT when `multiplier` is negative or not finite, or `base` is
 * below 1 or not finite. One thread at a time.
 */
layerline_status layerline_sampler_set_dry(layerline_sampler *sampler,
                                           float multiplier,
                                           float base,
                                           uint32_t allowed_length,
                                           uint32_t last_n);

/**
 * Adds a text that no sequence that DRY looks for goes across, wherever it begins and ends in tokens: usual are a line's end,
 * a colon, a quotation mark and an asterisk. There are none by default.
 *
 * `model`: of whose tokens; `text`, `length`: UTF-8, not empty.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_UNSUPPORTED when the model has no tokeniser that is built in;
 * LAYERLINE_ERROR_BUSY while another call on the sampler runs; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
 */
layerline_status layerline_sampler_add_dry_breaker(layerline_sampler *sampler,
                                                   const layerline_model *model,
                                                   const char *text,
                                                   size_t length,
                                                   layerline_error **err);

/**
 * Removes all texts that `layerline_sampler_add_dry_breaker` has added.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the sampler runs. One thread at a
 * time.
 */
layerline_status layerline_sampler_clear_dry_breakers(layerline_sampler *sampler,
                                                      layerline_error **err);

/**
 * Sets what is added to logits before the chain, in place of what was set before; there is nothing by default.
 *
 * `tokens`, `biases`, `count`: a bias for each token; minus infinity bans it. None may be NaN, or infinite above 0. Where a
 * token comes twice, both are added.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the sampler runs;
 * LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
 */
layerline_status layerline_sampler_set_logit_biases(layerline_sampler *sampler,
                                                    const int32_t *tokens,
                                                    const float *biases,
                                                    size_t count,
                                                    layerline_error **err);

/**
 * Sets which steps the chain has, and their order; LAYERLINE_STEP_PENALTIES to LAYERLINE_STEP_TEMPERATURE, in the order of
 * their numbers, by default. A step that is left out does nothing, whatever its setting; without the last one the
 * temperature is 1. Each step's own setting says whether it does something.
 *
 * `steps`, `count`: numbers LAYERLINE_STEP_, each at most once; may be none.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the sampler runs. One thread at a
 * time.
 */
layerline_status layerline_sampler_set_steps(layerline_sampler *sampler,
                                             const int32_t *steps,
                                             size_t count,
                                             layerline_error **err);

/* -- constraints: schemas, grammars, regular expressions ----------------------------------------------------------- */

/**
 * A JSON schema: the text is JSON that it describes. Members come in the order of the schema's "properties"; between them
 * stands ", ", and ": " after their names, as models write it. A member "x-guidance" of the schema changes that:
 * {"whitespace_flexible": true} allows any white space.
 */
#define LAYERLINE_CONSTRAINT_JSON_SCHEMA 0

/**
 * A grammar in llama.cpp's GBNF: the text is what its rule "root" says. Where one part of a rule can go on with what the
 * next one begins with, and the rule is part of a recursion, it does.
 */
#define LAYERLINE_CONSTRAINT_GBNF 1

/** A grammar in llguidance's variant of Lark: the text is what its rule "start" says. */
#define LAYERLINE_CONSTRAINT_LARK 2

/** A regular expression in the syntax of Rust's crate `regex`, which the whole text matches. */
#define LAYERLINE_CONSTRAINT_REGEX 3

/** The text goes on. */
#define LAYERLINE_CONSTRAINT_OPEN 0

/** The text may end here, or go on. */
#define LAYERLINE_CONSTRAINT_MAY_END 1

/** The text is complete: nothing can follow but a token that ends it. */
#define LAYERLINE_CONSTRAINT_COMPLETE 2

/**
 * What a text must be like, and how far it is: for generations, by `layerline_generation_set_constraint`, and for hosts
 * that sample themselves, token by token. It is about the tokens of one model, which it keeps alive.
 *
 * The first constraint of a model takes memory from the model's budget, once and for as long as the model is open: the
 * tokens by their bytes, 30 to 60 bytes for each of the vocabulary. Building that takes up to 100 bytes more for each, which
 * are outside the budget and freed before the call returns. What a constraint itself takes is outside every budget: mostly
 * less than a MiB. It is bounded, as its time is: texts have 1 MiB at most, grammars 1,000 rules and 200,000 symbols, schemas
 * 1,000 references and 2,000 properties in an object, regular expressions 50,000 states of 1 to 2 KiB each; a call that would
 * go beyond such a bound fails. This memory, and what building takes
 * but for its lists, is small or follows from the text: without memory for it the process ends, as for tokenising.
 * Calls take 512 KiB of stack at most.
 */
typedef struct layerline_constraint layerline_constraint;

/**
 * Makes a constraint on texts of a model's tokens, at the beginning of such a text.
 *
 * `kind`: how it is written: LAYERLINE_CONSTRAINT_JSON_SCHEMA, _GBNF, _LARK or _REGEX.
 * `text`, `length`: the schema, grammar or expression in UTF-8, 1 MiB at most. Nothing is fetched that it refers to.
 * `constraint`: set to a constraint that the caller owns: `layerline_constraint_free`.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT says what is wrong with the text, also where it asks for what is not built in, or
 * for more than a constraint may take; LAYERLINE_ERROR_UNSUPPORTED: the library was built without constraints, or as for
 * `layerline_model_tokenize`; LAYERLINE_ERROR_FORMAT as there; LAYERLINE_ERROR_MEMORY_BUDGET: no room for the tokens;
 * LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread; the first call on a model takes up to a second, and others wait for it.
 */
layerline_status layerline_constraint_new(const layerline_model *model,
                                          int32_t kind,
                                          const char *text,
                                          size_t length,
                                          layerline_constraint **constraint,
                                          layerline_error **err);

/**
 * Frees a constraint; NULL is a no-op. Generations that were given it have copies. Any thread, once, with no call on it
 * running.
 */
void layerline_constraint_free(layerline_constraint *constraint);

/**
 * Copies a constraint: what it asks for, and how far its text is. The two have nothing in common from then on.
 *
 * `copy`: set to a constraint that the caller owns: `layerline_constraint_free`.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on the constraint runs;
 * LAYERLINE_ERROR_OUT_OF_MEMORY. Any thread.
 */
layerline_status layerline_constraint_copy(const layerline_constraint *constraint,
                                           layerline_constraint **copy,
                                           layerline_error **err);

/**
 * Tells which tokens may come next, among them those that end the text where it may end. It is best called while the pass
 * runs whose logits it is for, and most often takes less than a millisecond.
 *
 * `words`, `cap`, `needed`: 32 tokens in each: bit i % 32, from the lowest, of word i / 32 is that of token i. `*needed` is
 * the vocabulary divided by 32, rounded up, also where there is no room: then the call returns
 * LAYERLINE_ERROR_BUFFER_TOO_SMALL and takes no time. Logits beyond the vocabulary belong to no token.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_BUSY while another call on the
 * constraint runs; LAYERLINE_ERROR_UNSUPPORTED: to go on goes beyond what a constraint may take, or no token of the
 * vocabulary goes on with the text: all further calls fail then. One thread at a time.
 */
layerline_status layerline_constraint_mask(layerline_constraint *constraint,
                                           uint32_t *words,
                                           size_t cap,
                                           size_t *needed,
                                           layerline_error **err);

/**
 * Tells the constraint how its text goes on.
 *
 * `tokens`, `count`: in their order; may be none. The last of them may end the text, where it may end.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT, also where one of them may not come there: then none is taken;
 * LAYERLINE_ERROR_BUSY and LAYERLINE_ERROR_UNSUPPORTED as for `layerline_constraint_mask`. One thread at a time.
 */
layerline_status layerline_constraint_accept(layerline_constraint *constraint,
                                             const int32_t *tokens,
                                             size_t count,
                                             layerline_error **err);

/**
 * Gives the tokens that the text goes on with in any case, as the model's tokeniser would cut that text. They are not
 * accepted: where they are fed to a session, tell the constraint too. There is none where the text has a choice, or is
 * complete.
 *
 * `tokens`, `cap`, `needed`: the tokens, as for `layerline_model_tokenize`.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUFFER_TOO_SMALL; LAYERLINE_ERROR_BUSY and
 * LAYERLINE_ERROR_UNSUPPORTED as for `layerline_constraint_mask`. One thread at a time.
 */
layerline_status layerline_constraint_forced(layerline_constraint *constraint,
                                             int32_t *tokens,
                                             size_t cap,
                                             size_t *needed,
                                             layerline_error **err);

/**
 * Tells how far the text is.
 *
 * `state`: set to LAYERLINE_CONSTRAINT_OPEN, _MAY_END or _COMPLETE.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY and LAYERLINE_ERROR_UNSUPPORTED as for
 * `layerline_constraint_mask`. One thread at a time.
 */
layerline_status layerline_constraint_get_state(layerline_constraint *constraint,
                                                int32_t *state,
                                                layerline_error **err);

/* -- generation with stop strings, constraints and drafts ---------------------------------------------------------- */

/** The generation has not ended, or by an error. */
#define LAYERLINE_END_NONE 0

/** The model chose a token that ends the text. */
#define LAYERLINE_END_TOKEN 1

/** The most tokens that were asked for are there. */
#define LAYERLINE_END_LENGTH 2

/** A stop string came. */
#define LAYERLINE_END_STOP 3

/** The callback returned false. */
#define LAYERLINE_END_CALLBACK 4

/** The text is complete by its constraint, which lets nothing follow. */
#define LAYERLINE_END_CONSTRAINT 5

/** The context was full: the call returned LAYERLINE_ERROR_CONTEXT_FULL. */
#define LAYERLINE_END_CONTEXT 6

/** A full context ends a generation. */
#define LAYERLINE_CONTEXT_STOP 0

/** Where the context is full, the oldest tokens are dropped. */
#define LAYERLINE_CONTEXT_DROP_OLDEST 1

/**
 * How texts are generated: how long they become, what ends them, and who drafts tokens of them. It can be used for many
 * generations, one after the other, and belongs to no session.
 *
 * Drafts make generation faster where weights are streamed: a pass over several tokens reads the weights once. Guesses of
 * the next tokens are taken in by one pass, the sampler chooses by the logits of each as it would without guesses, and
 * what follows a wrong one is taken back. The tokens, the sampler and the session are the same as without drafts, bit for
 * bit. How many tokens are drafted follows from what passes cost and from how many were right lately, both measured: where
 * drafts do not pay, there are none.
 *
 * Drafting takes logits of up to `max_drafts` further positions from the budget while a generation runs; where there is no
 * room for them, fewer tokens are drafted, or none. Its own memory, 4 bytes for each token of prompts and texts where tokens
 * are drafted, is outside every budget.
 *
 * With a constraint, what it leaves no choice about is drafted too, up to 16 tokens for a pass and whatever is set: such a
 * text costs no passes of its own. That takes logits as above, or of 16 further positions. Which tokens may come next is
 * found while the pass runs, on a thread of the library's that lives as long as the generation; where the library was built
 * without threads, after the pass. 4 bytes for each token of the vocabulary, and an eighth for each token of a pass, are
 * outside every budget, beside what the constraint takes.
 */
typedef struct layerline_generation layerline_generation;

/** What the last generation was. */
typedef struct layerline_generation_stats {
    /** Set by the caller to sizeof(layerline_generation_stats) before the call. */
    uint32_t struct_size;
    /** Why it ended: one of LAYERLINE_END_. */
    int32_t end;
    /** Tokens chosen, one that ended the text included. */
    uint64_t tokens;
    /** Passes after those of the prompt. */
    uint64_t passes;
    /** Tokens that were drafted. */
    uint64_t drafted;
    /** Those of them that the sampler chose. */
    uint64_t accepted;
    /** Nanoseconds that drafts have saved, by estimate, less those they have cost. */
    int64_t gained_ns;
    /** Tokens of the session that were dropped to make room: `layerline_generation_set_context_policy`. */
    uint64_t dropped;
} layerline_generation_stats;

/** A token and how likely it was. */
typedef struct layerline_token_logprob {
    /** The token. */
    int32_t token;
    /** The natural logarithm of its probability. */
    float logprob;
} layerline_token_logprob;

/**
 * A token that was generated. The library fills it, and may know more members than the host: look at none that lies beyond
 * `struct_size`. What it points to is valid during the call.
 */
typedef struct layerline_generated {
    /** Bytes of the struct that the library has filled. */
    uint32_t struct_size;
    /** What was sampled. */
    int32_t token;
    /** The text that became whole with it, as `layerline_token_callback` gets it; not NUL-terminated. */
    const char *piece;
    /** Bytes of `piece`. */
    size_t length;
    /**
     * The natural logarithm of the token's probability by the softmax of the model's logits. NaN where
     * `layerline_generation_set_logprobs` has not asked for it.
     */
    float logprob;
    /**
     * The same by what the token was drawn from: what the sampler's chain left, divided by the temperature. A greedy choice
     * is certain, 0. NaN where not asked for.
     */
    float sampled_logprob;
    /**
     * The likeliest tokens by the model's logits, the likeliest first, of equals the lowest; NULL where there are none.
     * Tokens that are impossible are left out.
     */
    const layerline_token_logprob *top;
    /** How many there are. */
    size_t top_count;
    /** The likeliest tokens of what was drawn from, in the same order; NULL where there are none. */
    const layerline_token_logprob *sampled_top;
    /** How many there are. */
    size_t sampled_top_count;
} layerline_generated;

/**
 * Gets each generated token, on the thread that called `layerline_session_generate_detailed`; false stops.
 *
 * `generated`: the token and what is known of it; valid during the call.
 * `user_data`: as given to `layerline_session_generate_detailed`.
 *
 * What holds for `layerline_token_callback` holds for it.
 */
typedef bool (*layerline_generated_callback)(const struct layerline_generated *generated, void *user_data);

/**
 * Makes a generation without limits, stop strings and drafts. The caller owns it: `layerline_generation_free`. NULL when
 * there is no memory. Any thread.
 */
layerline_generation *layerline_generation_new(void);

/** Frees a generation; NULL is a no-op. Any thread, once, with no call on it running. */
void layerline_generation_free(layerline_generation *generation);

/**
 * Sets the most tokens that are generated. By default a text ends in another way, or by LAYERLINE_ERROR_CONTEXT_FULL.
 *
 * `tokens`: with 0 only the prompt is run.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_generation_set_max_tokens(layerline_generation *generation, size_t tokens);

/**
 * Adds a text that ends a generation where it comes, wherever it begins and ends in tokens. The callback gets neither it
 * nor a part of it: text that may be its beginning is kept back until that is known.
 *
 * `text`, `length`: UTF-8, not empty.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
 */
layerline_status layerline_generation_add_stop(layerline_generation *generation,
                                               const char *text,
                                               size_t length,
                                               layerline_error **err);

/**
 * Removes all stop strings.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_generation_clear_stops(layerline_generation *generation, layerline_error **err);

/**
 * Drafts from the text itself: where the last tokens of prompts and texts stood before, what followed them there is
 * drafted. That pays where a text repeats parts of itself: changes to a given text, lists of records, quotations.
 *
 * `max_drafts`: the most tokens drafted for a pass, at most 64; 0: no drafts, the default.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_generation_set_draft_text(layerline_generation *generation, uint32_t max_drafts);

/**
 * Lets another open model draft: a smaller one of the same family, or the same one in a smaller format, best wholly in
 * memory; or the layer of the model's own file that predicts further tokens (`layerline_options_set_predictor`), which
 * costs little, as it is one layer, and guesses well, as it reads what the model has made of the text so far. It works in a
 * session of its own, which takes its memory from that model's budget and lasts until another drafter is set or the
 * generation is freed.
 *
 * With a layer as drafter a generation also takes the hidden states of a chunk from the budget of the model that texts are
 * generated with: 4 bytes for each element of an embedding, times the chunk length. Without room for them nothing is
 * drafted.
 *
 * `model`: its tokens must be those of the models that texts are generated with. NULL: no drafts.
 * `context_length`: tokens that its session has room for; 0: the default of its options. Texts beyond it are not drafted;
 * a layer goes on with the latest tokens alone.
 * `max_drafts`: the most tokens drafted for a pass, 1 to 64; without a model it does not count.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_UNSUPPORTED: the model has no tokeniser, or generates no text;
 * as `layerline_session_new`. One thread at a time.
 */
layerline_status layerline_generation_set_draft_model(layerline_generation *generation,
                                                      const layerline_model *model,
                                                      uint32_t context_length,
                                                      uint32_t max_drafts,
                                                      layerline_error **err);

/**
 * Lets texts follow a constraint. Each generation begins where the constraint is now; it ends with
 * LAYERLINE_END_CONSTRAINT where nothing can follow, with a token that ends the text where the model chooses one and the
 * constraint lets it, or as any other: then the text is not complete.
 *
 * `constraint`: copied. NULL: texts are free.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while another call on either runs;
 * LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
 */
layerline_status layerline_generation_set_constraint(layerline_generation *generation,
                                                     const layerline_constraint *constraint,
                                                     layerline_error **err);

/**
 * Sets what happens when the context of a session is full, by a token of the text or by a prompt that does not fit behind
 * what the session holds.
 *
 * With LAYERLINE_CONTEXT_DROP_OLDEST the first `keep_first` tokens of the session stay. Of those after them the older half is
 * dropped, or as many as are needed, and the rest is taken in again at the positions it has from then on. So results are
 * exact: the bits are those of a new session that was given the tokens that stay. It works for models of every kind, and
 * costs a pass over the tokens that stay; of a model whose layers cannot go back to the first `keep_first` tokens, such as a
 * recurrent one, over those too. Over a long text each token is taken in about once more. `dropped` of
 * `layerline_generation_stats` tells how many went. A prompt that does not fit beside `keep_first` tokens ends with
 * LAYERLINE_ERROR_CONTEXT_FULL as ever, and so does a session that does not know its tokens (`layerline_session_load`). Where
 * the pass over the tokens that stay fails or is interrupted, the session holds fewer: its position tells.
 *
 * `policy`: LAYERLINE_CONTEXT_STOP, the default, or LAYERLINE_CONTEXT_DROP_OLDEST.
 * `keep_first`: tokens that always stay, such as a system prompt; without dropping it does not count.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT. One thread at a time.
 */
layerline_status layerline_generation_set_context_policy(layerline_generation *generation,
                                                         int32_t policy,
                                                         size_t keep_first);

/**
 * Asks for the log-probabilities of tokens, which the callback of `layerline_session_generate_detailed` gets. They take a
 * time of their own, about that of a draw, and none where they are not asked for. Drafts do not change them.
 *
 * `logprobs`: false, the default: none.
 * `top`: of how many of the likeliest tokens, at most 256; 0: of the token chosen alone.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_OUT_OF_MEMORY. One thread at a time.
 */
layerline_status layerline_generation_set_logprobs(layerline_generation *generation,
                                                   bool logprobs,
                                                   uint32_t top);

/**
 * Fills `stats` with figures of the last generation; set `stats->struct_size` before the call.
 *
 * Errors: LAYERLINE_ERROR_INVALID_ARGUMENT; LAYERLINE_ERROR_BUSY while a generation runs. Any thread.
 */
layerline_status layerline_generation_get_stats(const layerline_generation *generation,
                                                layerline_generation_stats *stats,
                                                layerline_error **err);

/**
 * As `layerline_session_generate`, with the settings of a generation.
 *
 * `callback`, `user_data`: see `layerline_token_callback`. With stop strings a piece may hold text of earlier tokens too,
 * which was kept back. The token that completes a stop string is passed on only where text before the stop string comes
 * with it.
 *
 * Errors: as `layerline_session_generate`; those of passes of a model that drafts, and of `layerline_constraint_mask`;
 * LAYERLINE_ERROR_INVALID_ARGUMENT also where that model, or the constraint's, has other tokens; LAYERLINE_ERROR_BUSY also while the generation is in use. Where the model has recurrent layers,
 * an error may leave the session without the last tokens that were passed on: its position tells. One thread at a time.
 */
layerline_status layerline_session_generate_with(layerline_session *session,
                                                 layerline_generation *generation,
                                                 layerline_sampler *sampler,
                                                 const int32_t *prompt,
                                                 size_t count,
                                                 layerline_token_callback callback,
                                                 void *user_data,
                                                 layerline_error **err);

/**
 * Runs and generates as `layerline_session_generate_with` does, with a callback that gets all that is known of each token:
 * log-probabilities, where `layerline_generation_set_logprobs` asks for them.
 *
 * `callback`, `user_data`: see `layerline_generated_callback`. It gets the same tokens with the same pieces.
 *
 * Errors: as `layerline_session_generate_with`. One thread at a time.
 */
layerline_status layerline_session_generate_detailed(layerline_session *session,
                                                     layerline_generation *generation,
                                                     layerline_sampler *sampler,
                                                     const int32_t *prompt,
                                                     size_t count,
                                                     layerline_generated_callback callback,
                                                     void *user_data,
                                                     layerline_error **err);

#ifdef __cplusplus
}
#endif

#endif /* LAYERLINE_H */
