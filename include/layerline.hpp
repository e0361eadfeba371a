/* layerline for C++17: the C interface of layerline.h with owners, views and typed errors. Header only; nothing here is
 * exported, so the C ABI is all that a program depends on.
 *
 * Conventions
 *
 *   Twins      Each function that can fail comes twice. `try_name` is noexcept and returns a `result`: the value, or a
 *              `failure`. `name` does the same and throws `error` in place of the failure. Where a program is compiled
 *              without exceptions, only the first is there; constructors then have `try_make` in their place.
 *   Handles    Own what they hold, can be moved and not copied. An empty one, moved from or released, is refused with
 *              status::invalid_argument by every function.
 *   Meaning    Each function is the one of layerline.h that its comment names: units, errors and which threads may call
 *              it are said there. What is said here is what differs.
 *   Threads    Functions on a const handle may run at once with each other. `model` and `budget` may be used by any
 *              thread at any time; `options`, `session` and `sampler` by one thread at a time. Destruction and moves
 *              happen with no call on that handle running.
 *   Strings    Views need not end in NUL. Paths and metadata keys that hold a NUL are refused.
 *   Memory     `try_` functions allocate nothing themselves, but for copies of paths and keys longer than 255 bytes.
 */
#ifndef LAYERLINE_HPP
#define LAYERLINE_HPP

#include "layerline.h"

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <iterator>
#include <limits>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>

#if defined(__cpp_exceptions) || defined(_CPPUNWIND)
/** 1 where the functions that throw are declared, 0 in code compiled without exceptions. */
#define LAYERLINE_EXCEPTIONS 1
#include <exception>
#include <stdexcept>
#include <vector>
#else
#define LAYERLINE_EXCEPTIONS 0
#endif

/** All of layerline's C++ interface. */
namespace layerline {

/* -- words --------------------------------------------------------------------------------------------------------- */

/** How a call ended: layerline_status with a type of its own. It may hold numbers that a newer library has added. */
enum class status : layerline_status {
    ok = LAYERLINE_OK,                                  /**< Success. */
    invalid_argument = LAYERLINE_ERROR_INVALID_ARGUMENT, /**< An argument is empty, out of range or not UTF-8. */
    io = LAYERLINE_ERROR_IO,                            /**< Missing file, short read, device error. */
    format = LAYERLINE_ERROR_FORMAT,                    /**< Not GGUF, truncated, contradictory or out of range. */
    unsupported = LAYERLINE_ERROR_UNSUPPORTED,          /**< A valid file that needs what is not built in. */
    memory_budget = LAYERLINE_ERROR_MEMORY_BUDGET,      /**< The budget is below the floor. */
    out_of_memory = LAYERLINE_ERROR_OUT_OF_MEMORY,      /**< The system gave no memory. */
    cancelled = LAYERLINE_ERROR_CANCELLED,              /**< Interrupted, or its ticket cancelled. */
    context_full = LAYERLINE_ERROR_CONTEXT_FULL,        /**< The tokens do not fit into the session's context. */
    buffer_too_small = LAYERLINE_ERROR_BUFFER_TOO_SMALL, /**< `failure::needed` says how long the result is. */
    busy = LAYERLINE_ERROR_BUSY,                        /**< Another call has the handle, or too many events wait. */
    internal = LAYERLINE_ERROR_INTERNAL,                /**< A fault inside; the handles concerned can only be freed. */
    not_found = LAYERLINE_ERROR_NOT_FOUND,              /**< No such metadata key, ticket or chat template. */
};

/** How weights are read from storage. */
enum class io_mode : std::int32_t {
    automatic = LAYERLINE_IO_AUTO,    /**< Direct where the file system takes it, else buffered. */
    direct = LAYERLINE_IO_DIRECT,     /**< Past the page cache. */
    buffered = LAYERLINE_IO_BUFFERED, /**< Through the page cache. */
    mmap = LAYERLINE_IO_MMAP,         /**< A mapping; a file truncated meanwhile can kill the process. */
    source = LAYERLINE_IO_SOURCE,     /**< By a `source`: what stats say of it. It cannot be set. */
};

/** How sessions keep keys and values. */
enum class kv_type : std::int32_t {
    f16 = LAYERLINE_KV_F16,   /**< Half floats. */
    q8_0 = LAYERLINE_KV_Q8_0, /**< Signed bytes with a scale for every 32: 17/32 of the memory, results differ a little. */
};

/** Which tokens of a pass get logits. */
enum class logit_rows : std::int32_t {
    last = LAYERLINE_LOGITS_LAST, /**< The last one. */
    all = LAYERLINE_LOGITS_ALL,   /**< Every one. */
    none = LAYERLINE_LOGITS_NONE, /**< None. */
};

/** Which embeddings a pass leaves beside logits: hidden states after the final norm, not normalised. */
enum class embedding_rows : std::int32_t {
    none = LAYERLINE_EMBEDDINGS_NONE,   /**< None. */
    all = LAYERLINE_EMBEDDINGS_ALL,     /**< One of every token. */
    last = LAYERLINE_EMBEDDINGS_LAST,   /**< That of the last token. */
    mean = LAYERLINE_EMBEDDINGS_MEAN,   /**< The mean over the pass. */
    first = LAYERLINE_EMBEDDINGS_FIRST, /**< That of the first token. */
    score = LAYERLINE_EMBEDDINGS_SCORE, /**< In its place the outputs of the model's classifier. */
};

/** Where a layer is. */
enum class layer_state : std::int32_t {
    absent = LAYERLINE_LAYER_ABSENT,   /**< Not in memory. */
    loading = LAYERLINE_LAYER_LOADING, /**< Reads of it are queued or in flight. */
    ready = LAYERLINE_LAYER_READY,     /**< All of it is in memory. */
    pinned = LAYERLINE_LAYER_PINNED,   /**< Ready, and stays. */
};

/** What an event tells. */
enum class event_kind : std::uint32_t {
    layer = LAYERLINE_EVENT_LAYER, /**< One layer of a prefetch is ready, or failed. */
    done = LAYERLINE_EVENT_DONE,   /**< A ticket is finished. */
};

/** How text is read; values may be or-ed together. */
enum class tokenize_flags : std::uint32_t {
    none = 0,                                /**< Plain text. */
    special = LAYERLINE_TOKENIZE_SPECIAL,    /**< Recognise control tokens: for templates, never for users' text. */
    bos = LAYERLINE_TOKENIZE_BOS,            /**< Add the beginning token where the model wants one. */
    eos = LAYERLINE_TOKENIZE_EOS,            /**< Add the ending token where the model wants one. */
    goes_on = LAYERLINE_TOKENIZE_CONTINUE,   /**< The text goes on another: no space is put before it. */
};

/** Both sets of flags. */
constexpr tokenize_flags operator|(tokenize_flags a, tokenize_flags b) noexcept
{
    return static_cast<tokenize_flags>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}

/** How tokens are turned into text: LAYERLINE_DETOKENIZE_ values, to be or-ed. */
enum class detokenize_flags : std::uint32_t {
    none = 0,
    control = LAYERLINE_DETOKENIZE_CONTROL,  /**< Control tokens have the text of their names. */
    goes_on = LAYERLINE_DETOKENIZE_CONTINUE, /**< The tokens go on a text: its first space stays. */
};

/** Both. */
constexpr detokenize_flags operator|(detokenize_flags a, detokenize_flags b) noexcept
{
    return static_cast<detokenize_flags>(static_cast<std::uint32_t>(a) | static_cast<std::uint32_t>(b));
}

/** What a token is; values may be or-ed together. */
enum class token_attributes : std::uint32_t {
    none = 0,                                     /**< Plain text. */
    control = LAYERLINE_TOKEN_CONTROL,            /**< Steers the model, and has no text in an answer. */
    end = LAYERLINE_TOKEN_END,                    /**< Ends a text or a turn. */
    byte = LAYERLINE_TOKEN_BYTE,                  /**< Stands for one byte. */
    user_defined = LAYERLINE_TOKEN_USER_DEFINED,  /**< Recognised in any text. */
    unknown = LAYERLINE_TOKEN_UNKNOWN,            /**< Stands for text that the vocabulary does not have. */
    unused = LAYERLINE_TOKEN_UNUSED,              /**< Marked as unused. */
};

/** Whether `all` has one of `some`. */
constexpr bool operator&(token_attributes all, token_attributes some) noexcept
{
    return (static_cast<std::uint32_t>(all) & static_cast<std::uint32_t>(some)) != 0;
}

/** Compares `layerline_event::status` with a name. */
constexpr bool operator==(layerline_status a, status b) noexcept { return a == static_cast<layerline_status>(b); }
/** Compares `layerline_event::status` with a name. */
constexpr bool operator!=(layerline_status a, status b) noexcept { return !(a == b); }
/** Compares `layerline_event::kind` with a name. */
constexpr bool operator==(std::uint32_t a, event_kind b) noexcept { return a == static_cast<std::uint32_t>(b); }
/** Compares `layerline_event::kind` with a name. */
constexpr bool operator!=(std::uint32_t a, event_kind b) noexcept { return !(a == b); }

using token = std::int32_t;              /**< A token's number in the vocabulary. */
using ticket = std::uint64_t;            /**< What a request is known by; never 0. */
using event = layerline_event;           /**< A completion. */
using message = layerline_message;       /**< What one says in a conversation: role and content, NUL-terminated. */
using memory_plan = layerline_plan;      /**< What a model needs, in bytes. */
using model_info = layerline_model_info; /**< Facts of a model. */
using session_info = layerline_session_info; /**< Facts of a session. */
using progress = layerline_progress;         /**< How far a pass has come. */
/** How a constraint is written. */
enum class constraint_kind : std::int32_t {
    json_schema = LAYERLINE_CONSTRAINT_JSON_SCHEMA,
    gbnf = LAYERLINE_CONSTRAINT_GBNF,
    lark = LAYERLINE_CONSTRAINT_LARK,
    regex = LAYERLINE_CONSTRAINT_REGEX
};
/** How far the text of a constraint is. */
enum class constraint_state : std::int32_t {
    open = LAYERLINE_CONSTRAINT_OPEN,        /**< It goes on. */
    may_end = LAYERLINE_CONSTRAINT_MAY_END,  /**< It may end here, or go on. */
    complete = LAYERLINE_CONSTRAINT_COMPLETE /**< Nothing can follow. */
};
using generation_stats = layerline_generation_stats; /**< Figures of the last generation. */
using token_logprob = layerline_token_logprob; /**< A token and how likely it was. */
using generated_token = layerline_generated; /**< A token that was generated, and what is known of it. */
using model_stats = layerline_stats;     /**< Counters since the model was opened; times in ns, sizes in bytes. */

/** A view of `size` values in a row that somebody else owns, as std::span of C++20. Valid as long as they are. */
template <class T>
class span {
    T *data_ = nullptr;
    std::size_t size_ = 0;

    template <class C>
    using element_of = std::remove_pointer_t<decltype(std::data(std::declval<C &>()))>;

public:
    /** No values. */
    constexpr span() noexcept = default;
    /** `size` values from `data`. */
    constexpr span(T *data, std::size_t size) noexcept : data_(data), size_(size) {}
    /** All values of an array, vector, span or other container that keeps them in a row. */
    template <class C, class = std::enable_if_t<std::is_convertible_v<element_of<C> (*)[], T (*)[]>>>
    constexpr span(C &&values) noexcept : data_(std::data(values)), size_(std::size(values)) {}

    /** The first value; may be null where there are none. */
    constexpr T *data() const noexcept { return data_; }
    /** How many values. */
    constexpr std::size_t size() const noexcept { return size_; }
    /** Whether there are none. */
    constexpr bool empty() const noexcept { return size_ == 0; }
    /** Where the values begin. */
    constexpr T *begin() const noexcept { return data_; }
    /** Where they end. */
    constexpr T *end() const noexcept { return data_ + size_; }
    /** A value; `index` must be below `size()`. */
    constexpr T &operator[](std::size_t index) const noexcept { return data_[index]; }
};

/* -- failures ------------------------------------------------------------------------------------------------------ */

/** Why a call failed: a status, and a message that names the file, the tensor, the figures. Can be moved only. */
class failure {
    struct release {
        void operator()(layerline_error *held) const noexcept { layerline_error_free(held); }
    };
    std::unique_ptr<layerline_error, release> held_;
    layerline::status status_ = layerline::status::ok;
    std::size_t needed_ = 0;

public:
    /** None: status::ok. */
    failure() noexcept = default;
    /** Of a call of the C interface. `held` may be null; otherwise it is owned from here on. */
    explicit failure(layerline_status status, layerline_error *held = nullptr, std::size_t needed = 0) noexcept
        : held_(held), status_(static_cast<layerline::status>(status)), needed_(needed) {}

    /** What kind of failure. */
    layerline::status status() const noexcept { return status_; }
    /** UTF-8, ends in NUL; valid as long as this. */
    const char *message() const noexcept
    {
        return held_ ? layerline_error_message(held_.get())
                     : layerline_status_string(static_cast<layerline_status>(status_));
    }
    /** For status::buffer_too_small: the size that is needed, with the NUL where there is one. Otherwise 0. */
    std::size_t needed() const noexcept { return needed_; }
};

#if LAYERLINE_EXCEPTIONS
/** What every function throws that throws; only std::bad_alloc may come beside it, and what a callback throws. */
class error : public std::runtime_error {
    layerline::status status_;

public:
    /** Takes over status and message. */
    explicit error(const failure &why) : std::runtime_error(why.message()), status_(why.status()) {}
    /** What kind of failure; `what()` is the message. */
    layerline::status status() const noexcept { return status_; }
};
#endif

/** A value, or why there is none. */
template <class T>
class [[nodiscard]] result {
    std::optional<T> value_;
    failure failure_;

public:
    /** Success. */
    result(T value) noexcept : value_(std::move(value)) {}
    /** Failure. */
    result(failure why) noexcept : failure_(std::move(why)) {}

    /** Whether there is a value. */
    explicit operator bool() const noexcept { return value_.has_value(); }
    /** The value; only where there is one. */
    T &operator*() & noexcept { return *value_; }
    /** The value, to be moved from; only where there is one. */
    T &&operator*() && noexcept { return *std::move(value_); }
    /** The value; only where there is one. */
    T *operator->() noexcept { return &*value_; }
    /** Why there is none; status::ok where there is one. */
    const failure &error() const noexcept { return failure_; }
#if LAYERLINE_EXCEPTIONS
    /** The value, taken out of here; throws `layerline::error` where there is none. */
    T value()
    {
        if (!value_) throw layerline::error(failure_);
        return *std::move(value_);
    }
#endif
};

/** Success, or why not. */
template <>
class [[nodiscard]] result<void> {
    failure failure_;

public:
    /** Success. */
    result() noexcept = default;
    /** Failure; a status of OK is success. */
    result(failure why) noexcept : failure_(std::move(why)) {}

    /** Whether it succeeded. */
    explicit operator bool() const noexcept { return failure_.status() == status::ok; }
    /** Why not; status::ok where it did. */
    const failure &error() const noexcept { return failure_; }
#if LAYERLINE_EXCEPTIONS
    /** Throws `layerline::error` unless it succeeded. */
    void value() const
    {
        if (!*this) throw layerline::error(failure_);
    }
#endif
};

/** Not for use outside this header. */
namespace detail {

/** What a call of the C interface came to: `value` where it succeeded. */
template <class T>
result<std::decay_t<T>> made(layerline_status status, T &&value, layerline_error *held = nullptr,
                             std::size_t needed = 0) noexcept
{
    if (status == LAYERLINE_OK) return std::forward<T>(value);
    return failure(status, held, needed);
}

/** A copy of a view that ends in NUL. */
class terminated {
    char short_[256];
    std::unique_ptr<char[]> long_;
    layerline_status status_ = LAYERLINE_OK;

public:
    explicit terminated(std::string_view text) noexcept
    {
        char *to = short_;
        if (text.find('\0') != std::string_view::npos) {
            status_ = LAYERLINE_ERROR_INVALID_ARGUMENT;
            text = {};
        } else if (text.size() >= sizeof short_) {
            long_.reset(to = new (std::nothrow) char[text.size() + 1]);
            if (to == nullptr) {
                status_ = LAYERLINE_ERROR_OUT_OF_MEMORY;
                to = short_;
                text = {};
            }
        }
        if (!text.empty()) std::memcpy(to, text.data(), text.size());
        to[text.size()] = '\0';
    }
    layerline_status status() const noexcept { return status_; }
    const char *get() const noexcept { return long_ ? long_.get() : short_; }
};

/** Owns a handle of the C interface, and frees it. */
template <class T, void (*release_handle)(T *)>
class handle {
    struct deleter {
        void operator()(T *held) const noexcept { release_handle(held); }
    };
    std::unique_ptr<T, deleter> held_;

protected:
    /** Takes over a handle of the C interface; null: holds nothing. */
    explicit handle(T *owned) noexcept : held_(owned) {}

public:
    /** Whether it holds anything. */
    explicit operator bool() const noexcept { return held_ != nullptr; }
    /** For the C interface; still owned here. */
    T *get() const noexcept { return held_.get(); }
    /** Gives the handle away: the caller frees it. */
    [[nodiscard]] T *release() noexcept { return held_.release(); }
};

} // namespace detail

/* -- version ------------------------------------------------------------------------------------------------------- */

/** layerline_version_number: MAJOR * 1000000 + MINOR * 1000 + PATCH of the library loaded. Any thread. */
inline std::uint32_t version_number() noexcept { return layerline_version_number(); }
/** layerline_version, always valid. Any thread. */
inline std::string_view version() noexcept { return layerline_version(); }
/** layerline_build_info, always valid. Any thread. */
inline std::string_view build_info() noexcept { return layerline_build_info(); }

/* -- options, budgets, plans --------------------------------------------------------------------------------------- */

/** A memory budget that several models share: layerline_budget. Models keep it alive. Any thread. */
class budget : public detail::handle<layerline_budget, layerline_budget_free> {
    using handle::handle;

public:
    /** Takes over a handle of the C interface. */
    static budget adopt(layerline_budget *owned) noexcept { return budget(owned); }
    /** layerline_budget_new: `bytes` to be shared. */
    static result<budget> try_make(std::uint64_t bytes) noexcept
    {
        layerline_budget *made = layerline_budget_new(bytes);
        return detail::made(made ? LAYERLINE_OK : LAYERLINE_ERROR_OUT_OF_MEMORY, budget(made));
    }
    /** layerline_budget_set_bytes: changes the total. */
    result<void> try_set_bytes(std::uint64_t bytes) const noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_budget_set_bytes(get(), bytes, &err);
        return failure(status, err);
    }
#if LAYERLINE_EXCEPTIONS
    /** As `try_make`. */
    explicit budget(std::uint64_t bytes) : budget(try_make(bytes).value()) {}
    /** As `try_set_bytes`. */
    void set_bytes(std::uint64_t bytes) const { try_set_bytes(bytes).value(); }
#endif
};

/** Settings for opening a model: layerline_options. Models take a copy. One thread at a time. */
class options : public detail::handle<layerline_options, layerline_options_free> {
    using handle::handle;

public:
    /** Takes over a handle of the C interface. */
    static options adopt(layerline_options *owned) noexcept { return options(owned); }
    /** layerline_options_new: every setting at its default. */
    static result<options> try_make() noexcept
    {
        layerline_options *made = layerline_options_new();
        return detail::made(made ? LAYERLINE_OK : LAYERLINE_ERROR_OUT_OF_MEMORY, options(made));
    }
    /** layerline_options_set_memory_budget: for a model and all its sessions; 0: what this process may use. */
    result<void> try_set_memory_budget(std::uint64_t bytes) noexcept
    {
        return failure(layerline_options_set_memory_budget(get(), bytes));
    }
    /** layerline_options_set_shared_budget: models live on `shared` together with others. */
    result<void> try_set_shared_budget(const budget &shared) noexcept
    {
        // NULL means none to the C interface: an empty handle must not pass for that.
        if (!shared) return failure(LAYERLINE_ERROR_INVALID_ARGUMENT);
        return failure(layerline_options_set_shared_budget(get(), shared.get()));
    }
    /** layerline_options_set_shared_budget with NULL: a memory budget of their own again. */
    result<void> try_clear_shared_budget() noexcept
    {
        return failure(layerline_options_set_shared_budget(get(), nullptr));
    }
    /** layerline_options_set_context_length: of new sessions; 0: 4096 or the model's, the lesser. */
    result<void> try_set_context_length(std::uint32_t tokens) noexcept
    {
        return failure(layerline_options_set_context_length(get(), tokens));
    }
    /** layerline_options_set_chunk_length: tokens of a prompt that share one sweep; 0: 256. */
    result<void> try_set_chunk_length(std::uint32_t tokens) noexcept
    {
        return failure(layerline_options_set_chunk_length(get(), tokens));
    }
    /** layerline_options_set_threads: that compute; 0: the CPUs this process may use. */
    result<void> try_set_threads(std::uint32_t threads) noexcept
    {
        return failure(layerline_options_set_threads(get(), threads));
    }
    /** layerline_options_set_share_sweeps: whether passes that wait share a sweep; true where it is not set. */
    result<void> try_set_share_sweeps(bool enabled) noexcept
    {
        return failure(layerline_options_set_share_sweeps(get(), enabled));
    }
    /** layerline_options_set_predictor: whether the layer that predicts further tokens is opened in place of the model. */
    result<void> try_set_predictor(bool enabled) noexcept
    {
        return failure(layerline_options_set_predictor(get(), enabled));
    }
    /** layerline_options_set_prefetch: whether a loader reads ahead. */
    result<void> try_set_prefetch(bool enabled) noexcept
    {
        return failure(layerline_options_set_prefetch(get(), enabled));
    }
    /** layerline_options_set_prefetch_distance: in layers; 0: as far as the budget allows. */
    result<void> try_set_prefetch_distance(std::uint32_t layers) noexcept
    {
        return failure(layerline_options_set_prefetch_distance(get(), layers));
    }
    /** layerline_options_set_cache_layers: held at most; 0: by budget alone. */
    result<void> try_set_cache_layers(std::uint32_t layers) noexcept
    {
        return failure(layerline_options_set_cache_layers(get(), layers));
    }
    /** layerline_options_set_io: how weights are read. */
    result<void> try_set_io(io_mode io) noexcept
    {
        return failure(layerline_options_set_io(get(), static_cast<std::int32_t>(io)));
    }
    /** layerline_options_set_kv_type: how sessions keep keys and values. */
    result<void> try_set_kv_type(kv_type kind) noexcept
    {
        return failure(layerline_options_set_kv_type(get(), static_cast<std::int32_t>(kind)));
    }
    /** layerline_options_set_profile: what `model::try_save_profile` wrote; empty: none. */
    result<void> try_set_profile(std::string_view path) noexcept
    {
        const detail::terminated name(path);
        if (name.status() != LAYERLINE_OK) return failure(name.status());
        return failure(layerline_options_set_profile(get(), path.empty() ? nullptr : name.get()));
    }
#if LAYERLINE_EXCEPTIONS
    /** As `try_make`. */
    options() : options(try_make().value()) {}
    /** As `try_set_memory_budget`; returns this, as all setters do. */
    options &set_memory_budget(std::uint64_t bytes) { return try_set_memory_budget(bytes).value(), *this; }
    /** As `try_set_shared_budget`. */
    options &set_shared_budget(const budget &shared) { return try_set_shared_budget(shared).value(), *this; }
    /** As `try_clear_shared_budget`. */
    options &clear_shared_budget() { return try_clear_shared_budget().value(), *this; }
    /** As `try_set_context_length`. */
    options &set_context_length(std::uint32_t tokens) { return try_set_context_length(tokens).value(), *this; }
    /** As `try_set_chunk_length`. */
    options &set_chunk_length(std::uint32_t tokens) { return try_set_chunk_length(tokens).value(), *this; }
    /** As `try_set_threads`. */
    options &set_threads(std::uint32_t threads) { return try_set_threads(threads).value(), *this; }
    /** As `try_set_share_sweeps`. */
    options &set_share_sweeps(bool enabled) { return try_set_share_sweeps(enabled).value(), *this; }
    /** As `try_set_predictor`. */
    options &set_predictor(bool enabled) { return try_set_predictor(enabled).value(), *this; }
    /** As `try_set_prefetch`. */
    options &set_prefetch(bool enabled) { return try_set_prefetch(enabled).value(), *this; }
    /** As `try_set_prefetch_distance`. */
    options &set_prefetch_distance(std::uint32_t layers) { return try_set_prefetch_distance(layers).value(), *this; }
    /** As `try_set_cache_layers`. */
    options &set_cache_layers(std::uint32_t layers) { return try_set_cache_layers(layers).value(), *this; }
    /** As `try_set_io`. */
    options &set_io(io_mode io) { return try_set_io(io).value(), *this; }
    /** As `try_set_kv_type`. */
    options &set_kv_type(kv_type kind) { return try_set_kv_type(kind).value(), *this; }
    /** As `try_set_profile`. */
    options &set_profile(std::string_view path) { return try_set_profile(path).value(), *this; }
#endif
};

/** Storage of the host's own, in place of a file: layerline_source. What is opened from it keeps what it needs of it. */
class source : public detail::handle<layerline_source, layerline_source_free> {
    using handle::handle;

    template <class Read>
    static std::int64_t call(std::uint64_t offset, void *buf, std::size_t length, void *user_data) noexcept
    {
#if LAYERLINE_EXCEPTIONS
        try {
            return (*static_cast<Read *>(user_data))(offset, buf, length);
        } catch (...) {
            return -1;
        }
#else
        return (*static_cast<Read *>(user_data))(offset, buf, length);
#endif
    }

public:
    /** Takes over a handle of the C interface. */
    static source adopt(layerline_source *owned) noexcept { return source(owned); }
    /**
     * layerline_source_new: `size` bytes, of which `read(std::uint64_t offset, void *buf, std::size_t length)` reads some and
     * returns how many, or a negative number where it fails; what it throws is a failure too. It is called on several threads
     * at once, unless `try_set_concurrent` says otherwise, and destroyed when nothing needs it any more, on any thread.
     */
    template <class Read>
    static result<source> try_make(std::uint64_t size, Read read) noexcept
    {
        Read *kept = new (std::nothrow) Read(std::move(read));
        if (kept == nullptr) return failure(LAYERLINE_ERROR_OUT_OF_MEMORY);
        layerline_source *made = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_source_new(
            size, call<Read>, [](void *user_data) { delete static_cast<Read *>(user_data); }, kept, &made, &err);
        if (status != LAYERLINE_OK) delete kept;
        return detail::made(status, source(made), err);
    }
    /** layerline_source_set_name: what messages call it; sources of a model in several files have the files' names. */
    result<void> try_set_name(std::string_view name) noexcept
    {
        const detail::terminated copied(name);
        if (copied.status() != LAYERLINE_OK) return failure(copied.status());
        layerline_error *err = nullptr;
        const layerline_status status = layerline_source_set_name(get(), copied.get(), &err);
        return failure(status, err);
    }
    /** layerline_source_set_concurrent: whether it is read on several threads at once; true where it is not set. */
    result<void> try_set_concurrent(bool enabled) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_source_set_concurrent(get(), enabled, &err);
        return failure(status, err);
    }
    /** layerline_source_add_file: a further file of a model of which this has the first. */
    result<void> try_add_file(const source &further) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_source_add_file(get(), further.get(), &err);
        return failure(status, err);
    }
#if LAYERLINE_EXCEPTIONS
    /** As `try_make`. */
    template <class Read>
    source(std::uint64_t size, Read read) : source(try_make(size, std::move(read)).value()) {}
    /** As `try_set_name`; returns this, as all setters do. */
    source &set_name(std::string_view name) { return try_set_name(name).value(), *this; }
    /** As `try_set_concurrent`. */
    source &set_concurrent(bool enabled) { return try_set_concurrent(enabled).value(), *this; }
    /** As `try_add_file`. */
    source &add_file(const source &further) { return try_add_file(further).value(), *this; }
#endif
};

/** layerline_options_plan_source: the same of a model in storage of the host's own. Any thread. */
inline result<memory_plan> try_plan_memory(const source &from, const options &with) noexcept
{
    if (!with) return failure(LAYERLINE_ERROR_INVALID_ARGUMENT);
    memory_plan plan{};
    plan.struct_size = sizeof plan;
    layerline_error *err = nullptr;
    const layerline_status status = layerline_options_plan_source(with.get(), from.get(), &plan, &err);
    return detail::made(status, plan, err);
}
/** layerline_options_plan: what a model would need at these options; reads the file's directory. Any thread. */
inline result<memory_plan> try_plan_memory(std::string_view path, const options &with) noexcept
{
    const detail::terminated name(path);
    if (name.status() != LAYERLINE_OK) return failure(name.status());
    if (!with) return failure(LAYERLINE_ERROR_INVALID_ARGUMENT);
    memory_plan plan{};
    plan.struct_size = sizeof plan;
    layerline_error *err = nullptr;
    const layerline_status status = layerline_options_plan(with.get(), name.get(), &plan, &err);
    return detail::made(status, plan, err);
}
#if LAYERLINE_EXCEPTIONS
/** As `try_plan_memory`. */
inline memory_plan plan_memory(const source &from, const options &with) { return try_plan_memory(from, with).value(); }
/** As `try_plan_memory`. */
inline memory_plan plan_memory(std::string_view path,
                               const options &with) { return try_plan_memory(path, with).value(); }
#endif

/* -- model --------------------------------------------------------------------------------------------------------- */

/** An open model: layerline_model. Sessions keep what they need of it alive. Any thread. */
class model : public detail::handle<layerline_model, layerline_model_free> {
    using handle::handle;

public:
    /** Takes over a handle of the C interface. */
    static model adopt(layerline_model *owned) noexcept { return model(owned); }
    /** layerline_model_open: returns when the file's directory is checked; weights arrive in the background. */
    static result<model> try_make(std::string_view path, const options &with) noexcept
    {
        const detail::terminated name(path);
        if (name.status() != LAYERLINE_OK) return failure(name.status());
        if (!with) return failure(LAYERLINE_ERROR_INVALID_ARGUMENT);
        layerline_model *opened = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_open(name.get(), with.get(), &opened, &err);
        return detail::made(status, model(opened), err);
    }
    /** layerline_model_open_fd: `length` bytes from `offset` of a file that stays the caller's; 0: to its end. */
    static result<model> try_make(int fd, std::uint64_t offset, std::uint64_t length, const options &with) noexcept
    {
        if (!with) return failure(LAYERLINE_ERROR_INVALID_ARGUMENT);
        layerline_model *opened = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_open_fd(fd, offset, length, with.get(), &opened, &err);
        return detail::made(status, model(opened), err);
    }
    /** layerline_model_open_source: out of storage of the host's own. */
    static result<model> try_make(const source &from, const options &with) noexcept
    {
        if (!with) return failure(LAYERLINE_ERROR_INVALID_ARGUMENT);
        layerline_model *opened = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_open_source(from.get(), with.get(), &opened, &err);
        return detail::made(status, model(opened), err);
    }
    /** layerline_model_get_info: facts of the model. */
    result<model_info> try_info() const noexcept
    {
        model_info info{};
        info.struct_size = sizeof info;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_get_info(get(), &info, &err);
        return detail::made(status, info, err);
    }
    /** layerline_model_get_stats: counters so far, also while passes run. */
    result<model_stats> try_stats() const noexcept
    {
        model_stats stats{};
        stats.struct_size = sizeof stats;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_get_stats(get(), &stats, &err);
        return detail::made(status, stats, err);
    }
    /** layerline_model_metadata: a scalar or string as text, into `buffer` with a NUL; what was written, without it. */
    result<std::string_view> try_metadata(std::string_view key, span<char> buffer) const noexcept
    {
        const detail::terminated name(key);
        if (name.status() != LAYERLINE_OK) return failure(name.status());
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_model_metadata(get(), name.get(), buffer.data(), buffer.size(), &needed, &err);
        return text_in(buffer, status, needed, err);
    }
    /** layerline_model_metadata_count: how many keys the metadata has. */
    result<std::size_t> try_metadata_count() const noexcept
    {
        std::size_t count = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_metadata_count(get(), &count, &err);
        return detail::made(status, count, err);
    }
    /** layerline_model_metadata_key_at: one of them, into `buffer` with a NUL; what was written, without it. */
    result<std::string_view> try_metadata_key(std::size_t index, span<char> buffer) const noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_model_metadata_key_at(get(), index, buffer.data(), buffer.size(), &needed, &err);
        return text_in(buffer, status, needed, err);
    }
    /** layerline_model_set_memory_budget: in bytes, while passes run; 0: what this process may use. */
    result<void> try_set_memory_budget(std::uint64_t bytes) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_set_memory_budget(get(), bytes, &err);
        return failure(status, err);
    }
    /** layerline_model_profile_save: writes how likely each expert is to be used, for `options::try_set_profile`. */
    result<void> try_save_profile(std::string_view path) const noexcept
    {
        const detail::terminated name(path);
        if (name.status() != LAYERLINE_OK) return failure(name.status());
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_profile_save(get(), name.get(), &err);
        return failure(status, err);
    }
    /** layerline_model_prefetch: asks for `count` layers from `first` and returns at once; events follow. */
    result<ticket> try_prefetch(std::uint32_t first, std::uint32_t count) noexcept
    {
        ticket given = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_prefetch(get(), first, count, &given, &err);
        return detail::made(status, given, err);
    }
    /** layerline_model_cancel: ends a prefetch or a submitted pass. */
    result<void> try_cancel(ticket given) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_cancel(get(), given, &err);
        return failure(status, err);
    }
    /** layerline_model_ticket_error: how a request failed; success where it has not. */
    result<void> try_ticket_error(ticket given) const noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_ticket_error(get(), given, &err);
        return failure(status, err);
    }
    /** layerline_model_poll: takes events that wait, into `room` for at least one; those it took. Never waits. */
    result<span<event>> try_poll(span<event> room) noexcept
    {
        std::size_t count = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_poll(get(), room.data(), room.size(), &count, &err);
        return detail::made(status, span<event>(room.data(), count), err);
    }
    /** layerline_model_wait without a limit: as `try_poll`, but waits for the first event. */
    result<span<event>> try_wait(span<event> room) noexcept { return wait_ms(-1, room); }
    /** layerline_model_wait: as `try_wait`, at most `timeout`, rounded up to milliseconds; then there may be no event. */
    template <class Rep, class Period>
    result<span<event>> try_wait_for(std::chrono::duration<Rep, Period> timeout, span<event> room) noexcept
    {
        // Compared as floating point: no duration is too long for that.
        const double limit = std::numeric_limits<std::int32_t>::max();
        const double ms = std::chrono::duration<double, std::milli>(timeout).count();
        if (!(ms > 0)) return wait_ms(0, room);
        if (ms >= limit) return wait_ms(std::numeric_limits<std::int32_t>::max(), room);
        const auto whole = static_cast<std::int32_t>(ms);
        return wait_ms(whole < ms ? whole + 1 : whole, room);
    }
    /** layerline_model_event_handle: ready while events wait; -1 where there is none. Neither read nor close it. */
    std::intptr_t event_handle() const noexcept { return layerline_model_event_handle(get()); }
    /** layerline_model_layer_state: where a layer is. */
    result<layer_state> try_state(std::uint32_t layer) const noexcept
    {
        std::int32_t state = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_layer_state(get(), layer, &state, &err);
        return detail::made(status, static_cast<layer_state>(state), err);
    }
    /** layerline_model_tokenize: UTF-8 to tokens, into `room`; how many. */
    result<std::size_t> try_tokenize(std::string_view text, tokenize_flags flags, span<token> room) const noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_tokenize(
            get(), text.data(), text.size(), static_cast<std::uint32_t>(flags), room.data(), room.size(), &needed, &err);
        return detail::made(status, needed, err, status == LAYERLINE_ERROR_BUFFER_TOO_SMALL ? needed : 0);
    }
    /** layerline_model_detokenize and layerline_model_detokenize_with: tokens to text, into `buffer` with a NUL; what was
     *  written, without it. */
    result<std::string_view> try_detokenize(span<const token> tokens, span<char> buffer,
                                            detokenize_flags flags = detokenize_flags::none) const noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_model_detokenize_with(get(), tokens.data(), tokens.size(), static_cast<std::uint32_t>(flags),
                                       buffer.data(), buffer.size(), &needed, &err);
        return text_in(buffer, status, needed, err);
    }
    /** layerline_model_format_chat: a conversation by the model's template, into `buffer` with a NUL; what was written. */
    result<std::string_view> try_format_chat(span<const message> said, bool add_assistant,
                                             span<char> buffer) const noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_format_chat(get(), said.data(), said.size(), add_assistant,
                                                              buffer.data(), buffer.size(), &needed, &err);
        return text_in(buffer, status, needed, err);
    }
    /** layerline_model_format_chat_json: one with tools and all else that the template knows, given as JSON. */
    result<std::string_view> try_format_chat_json(std::string_view json, bool add_assistant,
                                                  span<char> buffer) const noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_format_chat_json(get(), json.data(), json.size(), add_assistant,
                                                                   buffer.data(), buffer.size(), &needed, &err);
        return text_in(buffer, status, needed, err);
    }
    /** layerline_model_tokenize_chat: its tokens, into `room`; how many. What messages say never becomes control tokens. */
    result<std::size_t> try_tokenize_chat(span<const message> said, bool add_assistant, span<token> room) const noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_tokenize_chat(get(), said.data(), said.size(), add_assistant,
                                                                room.data(), room.size(), &needed, &err);
        return detail::made(status, needed, err, status == LAYERLINE_ERROR_BUFFER_TOO_SMALL ? needed : 0);
    }
    /** layerline_model_tokenize_chat_json: the same of one given as JSON. */
    result<std::size_t> try_tokenize_chat_json(std::string_view json, bool add_assistant,
                                               span<token> room) const noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_tokenize_chat_json(get(), json.data(), json.size(),
                                                                           add_assistant,
                                                                     room.data(), room.size(), &needed, &err);
        return detail::made(status, needed, err, status == LAYERLINE_ERROR_BUFFER_TOO_SMALL ? needed : 0);
    }
    /** layerline_model_token_text: bytes of one token, into `buffer` with a NUL, and what it is, into `attributes`. */
    result<std::string_view> try_token_text(token given, span<char> buffer, token_attributes &attributes) const noexcept
    {
        std::size_t needed = 0;
        std::uint32_t found = 0;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_model_token_text(get(), given, buffer.data(), buffer.size(), &needed, &found, &err);
        attributes = static_cast<token_attributes>(found);
        return text_in(buffer, status, needed, err);
    }
    /** layerline_model_token_is_end: whether a token ends a text or a turn. */
    result<bool> try_is_end(token given) const noexcept
    {
        bool end = false;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_token_is_end(get(), given, &end, &err);
        return detail::made(status, end, err);
    }
#if LAYERLINE_EXCEPTIONS
    /** As `try_make` with a path. */
    model(std::string_view path, const options &with) : model(try_make(path, with).value()) {}
    /** As `try_make` with a source. */
    model(const source &from, const options &with) : model(try_make(from, with).value()) {}
    /** As `try_make` with a descriptor. */
    model(int fd, std::uint64_t offset, std::uint64_t length, const options &with)
        : model(try_make(fd, offset, length, with).value()) {}
    /** As `try_info`. */
    model_info info() const { return try_info().value(); }
    /** As `try_stats`. */
    model_stats stats() const { return try_stats().value(); }
    /** As `try_metadata`, of any length. */
    std::string metadata(std::string_view key) const
    {
        return grown<std::string>([&](span<char> room) { return try_metadata(key, room); }, 64);
    }
    /** As `try_set_memory_budget`. */
    void set_memory_budget(std::uint64_t bytes) { try_set_memory_budget(bytes).value(); }
    /** As `try_save_profile`. */
    void save_profile(std::string_view path) const { try_save_profile(path).value(); }
    /** As `try_prefetch`. */
    ticket prefetch(std::uint32_t first, std::uint32_t count) { return try_prefetch(first, count).value(); }
    /** As `try_cancel`. */
    void cancel(ticket given) { try_cancel(given).value(); }
    /** As `try_ticket_error`: throws the request's error where it has failed. */
    void check(ticket given) const { try_ticket_error(given).value(); }
    /** As `try_metadata_count`. */
    std::size_t metadata_count() const { return try_metadata_count().value(); }
    /** As `try_metadata_key`, of any length. */
    std::string metadata_key(std::size_t index) const
    {
        return grown<std::string>([&](span<char> room) { return try_metadata_key(index, room); }, 64);
    }
    /** As `try_token_text`, of any length. */
    std::string token_text(token given, token_attributes &attributes) const
    {
        return grown<std::string>([&](span<char> room) { return try_token_text(given, room, attributes); }, 64);
    }
    /** As `try_poll`. */
    span<event> poll(span<event> room) { return try_poll(room).value(); }
    /** As `try_wait`. */
    span<event> wait(span<event> room) { return try_wait(room).value(); }
    /** As `try_wait_for`. */
    template <class Rep, class Period>
    span<event> wait_for(std::chrono::duration<Rep, Period> timeout, span<event> room)
    {
        return try_wait_for(timeout, room).value();
    }
    /** As `try_state`. */
    layer_state state(std::uint32_t layer) const { return try_state(layer).value(); }
    /** As `try_tokenize`, of any length. */
    std::vector<token> tokenize(std::string_view text, tokenize_flags flags = tokenize_flags::none) const
    {
        return grown<std::vector<token>>([&](span<token> room) { return try_tokenize(text, flags, room); },
                                         text.size() / 3 + 8);
    }
    /** As `try_detokenize`, of any length. */
    std::string detokenize(span<const token> tokens, detokenize_flags flags = detokenize_flags::none) const
    {
        return grown<std::string>([&](span<char> room) { return try_detokenize(tokens, room, flags); },
                                  tokens.size() * 5 + 16);
    }
    /** As `try_format_chat`, of any length. */
    std::string format_chat(span<const message> said, bool add_assistant = true) const
    {
        return grown<std::string>([&](span<char> room) { return try_format_chat(said, add_assistant, room); }, 1024);
    }
    /** As `try_format_chat_json`, of any length. */
    std::string format_chat_json(std::string_view json, bool add_assistant = true) const
    {
        return grown<std::string>([&](span<char> room) { return try_format_chat_json(json, add_assistant, room); },
                                  1024);
    }
    /** As `try_tokenize_chat`, of any length. */
    std::vector<token> tokenize_chat(span<const message> said, bool add_assistant = true) const
    {
        return grown<std::vector<token>>([&](span<token> room) { return try_tokenize_chat(said, add_assistant, room); },
                                         1024);
    }
    /** As `try_tokenize_chat_json`, of any length. */
    std::vector<token> tokenize_chat_json(std::string_view json, bool add_assistant = true) const
    {
        return grown<std::vector<token>>([&](span<token> room) { return try_tokenize_chat_json(json, add_assistant,
                                                                                               room); },
                                         1024);
    }
    /** As `try_is_end`. */
    bool is_end(token given) const { return try_is_end(given).value(); }
#endif

private:
    friend class detokenizer;
    friend class message_parser;
    friend class constraint;
    result<span<event>> wait_ms(std::int32_t timeout, span<event> room) noexcept
    {
        std::size_t count = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_model_wait(get(), timeout, room.data(), room.size(), &count, &err);
        return detail::made(status, span<event>(room.data(), count), err);
    }
    static result<std::string_view> text_in(span<char> buffer, layerline_status status, std::size_t needed,
                                            layerline_error *err) noexcept
    {
        if (status == LAYERLINE_OK) return std::string_view(buffer.data(), needed);
        return failure(status, err, status == LAYERLINE_ERROR_BUFFER_TOO_SMALL ? needed + 1 : 0);
    }
#if LAYERLINE_EXCEPTIONS
    static std::size_t length_of(std::size_t count) noexcept { return count; }
    static std::size_t length_of(std::string_view text) noexcept { return text.size(); }

    /** Calls `fill` with room enough for all that it writes. */
    template <class Container, class Fill>
    static Container grown(Fill fill, std::size_t guess)
    {
        Container whole(guess, {});
        for (;;) {
            auto written = fill(whole);
            if (written || written.error().status() != status::buffer_too_small) {
                whole.resize(length_of(written.value()));
                return whole;
            }
            whole.resize(written.error().needed());
        }
    }
#endif
};

/* -- sampling and sessions ----------------------------------------------------------------------------------------- */

class session;

/** Turns tokens into text as they come, in whole characters: layerline_detokenizer. One thread at a time. */
class detokenizer : public detail::handle<layerline_detokenizer, layerline_detokenizer_free> {
    using handle::handle;

public:
    /** Takes over a handle of the C interface. */
    static detokenizer adopt(layerline_detokenizer *owned) noexcept { return detokenizer(owned); }
    /** layerline_detokenizer_new: for the tokens of a model, which it keeps alive. */
    static result<detokenizer> try_make(const model &of, detokenize_flags flags = detokenize_flags::none) noexcept
    {
        layerline_detokenizer *made = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_detokenizer_new(of.get(), static_cast<std::uint32_t>(flags), &made, &err);
        return detail::made(status, detokenizer(made), err);
    }
    /** layerline_detokenizer_push: the text that became whole with these tokens, into `buffer` with a NUL. */
    result<std::string_view> try_push(span<const token> tokens, span<char> buffer) noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_detokenizer_push(get(), tokens.data(), tokens.size(), buffer.data(),
                                                                   buffer.size(), &needed, &err);
        return model::text_in(buffer, status, needed, err);
    }
    /** layerline_detokenizer_finish: ends the text; what is left of a character that was cut, into `buffer` with a NUL. */
    result<std::string_view> try_finish(span<char> buffer) noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_detokenizer_finish(get(), buffer.data(), buffer.size(), &needed, &err);
        return model::text_in(buffer, status, needed, err);
    }
#if LAYERLINE_EXCEPTIONS
    /** As `try_make`. */
    explicit detokenizer(const model &of, detokenize_flags flags = detokenize_flags::none)
        : detokenizer(try_make(of, flags).value())
    {
    }
    /** As `try_push`, of any length. */
    std::string push(span<const token> tokens)
    {
        return model::grown<std::string>([&](span<char> room) { return try_push(tokens, room); },
                                         tokens.size() * 5 + 16);
    }
    /** As `try_finish`. */
    std::string finish()
    {
        return model::grown<std::string>([&](span<char> room) { return try_finish(room); }, 16);
    }
#endif
};

/** What a part of a message is. */
enum class part_kind : std::uint32_t {
    content = LAYERLINE_PART_CONTENT,     /**< More of the answer. */
    reasoning = LAYERLINE_PART_REASONING, /**< More of what the model thinks before it answers. */
    call = LAYERLINE_PART_CALL,           /**< A tool call begins: its name. */
    arguments = LAYERLINE_PART_ARGUMENTS, /**< More of the arguments of a call. */
    call_end = LAYERLINE_PART_CALL_END,   /**< A tool call is complete. */
};

/** A part of a message. The texts are valid until the next call on its parser. */
struct message_part {
    part_kind kind = part_kind::content; /**< What the text is. */
    std::uint32_t call = 0; /**< Which call of the message, from 0. */
    std::string_view text; /**< UTF-8: text, a name, or nothing. */
    std::string_view id; /**< What the result of a call names it by. */
};

/**
 * Turns what a model writes into messages: what it says, what it thinks, and the tools it calls: layerline_message_parser.
 * The text may be cut anywhere. One thread at a time.
 */
class message_parser : public detail::handle<layerline_message_parser, layerline_message_parser_free> {
    using handle::handle;

public:
    /** Takes over a handle of the C interface. */
    static message_parser adopt(layerline_message_parser *owned) noexcept { return message_parser(owned); }
    /** layerline_message_parser_new: for what a model writes. `tools`: the JSON array of the conversation, or empty. */
    static result<message_parser> try_make(const model &of, std::string_view tools = {}) noexcept
    {
        return made_for(of.get(), nullptr, tools);
    }
    /** layerline_message_parser_new: for a format by its name, such as "hermes". */
    static result<message_parser> try_make(const char *format, std::string_view tools = {}) noexcept
    {
        return made_for(nullptr, format, tools);
    }
    /** layerline_message_parser_format: the name of the format. */
    const char *format() const noexcept { return layerline_message_parser_format(get()); }
    /** layerline_message_parser_begin: another message, after a prompt or the end of one. */
    result<void> try_begin(std::string_view prompt = {}) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_message_parser_begin(get(), prompt.data(), prompt.size(), &err);
        return failure(status, err);
    }
    /** layerline_message_parser_feed: takes more of the text. */
    result<void> try_feed(std::string_view text) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_message_parser_feed(get(), text.data(), text.size(), &err);
        return failure(status, err);
    }
    /** layerline_message_parser_finish: ends the message. */
    result<void> try_finish() noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_message_parser_finish(get(), &err);
        return failure(status, err);
    }
    /** layerline_message_parser_next: the next part; false where there is none. */
    bool next(message_part &part) noexcept
    {
        layerline_message_part filled{};
        filled.struct_size = sizeof filled;
        if (!layerline_message_parser_next(get(), &filled)) return false;
        part.kind = static_cast<part_kind>(filled.kind);
        part.call = filled.call;
        part.text = std::string_view(filled.text, filled.length);
        part.id = std::string_view(filled.id, filled.id_length);
        return true;
    }
    /** layerline_message_parser_message: the message so far as JSON, into `buffer` with a NUL. */
    result<std::string_view> try_message(span<char> buffer) const noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_message_parser_message(get(), buffer.data(), buffer.size(), &needed, &err);
        return model::text_in(buffer, status, needed, err);
    }
#if LAYERLINE_EXCEPTIONS
    /** As `try_make`. */
    explicit message_parser(const model &of, std::string_view tools = {}) : message_parser(try_make(of, tools).value())
    {
    }
    /** As `try_make`. */
    explicit message_parser(const char *format, std::string_view tools = {})
        : message_parser(try_make(format, tools).value())
    {
    }
    /** As `try_begin`. */
    void begin(std::string_view prompt = {}) { try_begin(prompt).value(); }
    /** As `try_feed`. */
    void feed(std::string_view text) { try_feed(text).value(); }
    /** As `try_finish`. */
    void finish() { try_finish().value(); }
    /** As `try_message`, of any length. */
    std::string message() const
    {
        return model::grown<std::string>([&](span<char> room) { return try_message(room); }, 1024);
    }
#endif

private:
    static result<message_parser> made_for(const layerline_model *of, const char *format,
                                           std::string_view tools) noexcept
    {
        layerline_message_parser *made = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_message_parser_new(of, format, tools.data(), tools.size(), &made, &err);
        return detail::made(status, message_parser(made), err);
    }
};

/**
 * What a text must be like, and how far it is: layerline_constraint. For generations, and for programs that sample
 * themselves. It keeps the model alive; one thread at a time.
 */
class constraint : public detail::handle<layerline_constraint, layerline_constraint_free> {
    using handle::handle;

public:
    /** Takes over a handle of the C interface. */
    static constraint adopt(layerline_constraint *owned) noexcept { return constraint(owned); }
    /** layerline_constraint_new: at the beginning of a text. */
    static result<constraint> try_make(const model &of, constraint_kind kind, std::string_view text) noexcept
    {
        layerline_constraint *made = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_constraint_new(of.get(), static_cast<std::int32_t>(kind), text.data(),
                                                                 text.size(), &made, &err);
        return detail::made(status, constraint(made), err);
    }
    /** layerline_constraint_copy: the two have nothing in common. */
    result<constraint> try_copy() const noexcept
    {
        layerline_constraint *made = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_constraint_copy(get(), &made, &err);
        return detail::made(status, constraint(made), err);
    }
    /** layerline_constraint_mask: the tokens that may come next, a bit for each; gives the number of words. */
    result<std::size_t> try_mask(span<std::uint32_t> room) noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_constraint_mask(get(), room.data(), room.size(), &needed, &err);
        return detail::made(status, needed, err, status == LAYERLINE_ERROR_BUFFER_TOO_SMALL ? needed : 0);
    }
    /** layerline_constraint_accept: how the text goes on. */
    result<void> try_accept(span<const token> tokens) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_constraint_accept(get(), tokens.data(), tokens.size(), &err);
        return failure(status, err);
    }
    /** layerline_constraint_forced: the tokens that the text goes on with in any case; gives their number. */
    result<std::size_t> try_forced(span<token> room) noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_constraint_forced(get(), room.data(), room.size(), &needed, &err);
        return detail::made(status, needed, err, status == LAYERLINE_ERROR_BUFFER_TOO_SMALL ? needed : 0);
    }
    /** layerline_constraint_get_state: how far the text is. */
    result<constraint_state> try_state() noexcept
    {
        std::int32_t state = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_constraint_get_state(get(), &state, &err);
        return detail::made(status, static_cast<constraint_state>(state), err);
    }
#if LAYERLINE_EXCEPTIONS
    /** As `try_make`. */
    constraint(const model &of, constraint_kind kind, std::string_view text)
        : constraint(try_make(of, kind, text).value())
    {
    }
    /** As `try_copy`. */
    constraint copy() const { return try_copy().value(); }
    /** As `try_mask`. */
    std::vector<std::uint32_t> mask()
    {
        return model::grown<std::vector<std::uint32_t>>([&](span<std::uint32_t> room) { return try_mask(room); }, 8192);
    }
    /** As `try_accept`. */
    void accept(span<const token> tokens) { try_accept(tokens).value(); }
    /** As `try_forced`. */
    std::vector<token> forced()
    {
        return model::grown<std::vector<token>>([&](span<token> room) { return try_forced(room); }, 64);
    }
    /** As `try_state`. */
    constraint_state state() { return try_state().value(); }
#endif
};

/**
 * Settings of generations: their length, what ends them, and who drafts tokens: layerline_generation. It can be used for
 * many, one after the other. Drafts change no token, and save readings of the weights where these are streamed. One thread
 * at a time.
 */
class generation : public detail::handle<layerline_generation, layerline_generation_free> {
    using handle::handle;

public:
    /** Takes over a handle of the C interface. */
    static generation adopt(layerline_generation *owned) noexcept { return generation(owned); }
    /** layerline_generation_new: without limits, stop strings and drafts. */
    static result<generation> try_make() noexcept
    {
        layerline_generation *made = layerline_generation_new();
        return detail::made(made ? LAYERLINE_OK : LAYERLINE_ERROR_OUT_OF_MEMORY, generation(made));
    }
    /** layerline_generation_set_max_tokens: the most tokens that are generated. */
    result<void> try_set_max_tokens(std::size_t tokens) noexcept
    {
        return failure(layerline_generation_set_max_tokens(get(), tokens));
    }
    /** layerline_generation_add_stop: a text that ends a generation where it comes. */
    result<void> try_add_stop(std::string_view text) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_generation_add_stop(get(), text.data(), text.size(), &err);
        return failure(status, err);
    }
    /** layerline_generation_clear_stops: removes all stop strings. */
    result<void> try_clear_stops() noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_generation_clear_stops(get(), &err);
        return failure(status, err);
    }
    /** layerline_generation_set_draft_text: drafts what followed the same tokens before; 0: no drafts. */
    result<void> try_draft_from_text(std::uint32_t max_drafts) noexcept
    {
        return failure(layerline_generation_set_draft_text(get(), max_drafts));
    }
    /** layerline_generation_set_draft_model: another model with the same tokens, or the layer of the
     * model's own file that predicts further tokens, drafts in a session of its own. */
    result<void> try_draft_with(const model &drafter, std::uint32_t context_length, std::uint32_t max_drafts) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_generation_set_draft_model(get(), drafter.get(), context_length, max_drafts, &err);
        return failure(status, err);
    }
    /** layerline_generation_set_context_policy: a full context drops its oldest tokens after the first `kept`; nothing: it ends. */
    result<void> try_set_kept_first(std::optional<std::size_t> kept) noexcept
    {
        const auto policy = kept ? LAYERLINE_CONTEXT_DROP_OLDEST : LAYERLINE_CONTEXT_STOP;
        return failure(layerline_generation_set_context_policy(get(), policy, kept.value_or(0)));
    }
    /** layerline_generation_set_logprobs: of each token, and of the likeliest `top`; nothing: none. */
    result<void> try_set_logprobs(std::optional<std::uint32_t> top) noexcept
    {
        return failure(layerline_generation_set_logprobs(get(), top.has_value(), top.value_or(0)));
    }
    /** layerline_generation_set_constraint: texts follow a copy of it; NULL: they are free. */
    result<void> try_set_constraint(const constraint *what) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_generation_set_constraint(get(), what ? what->get() : nullptr, &err);
        return failure(status, err);
    }
    /** layerline_generation_get_stats: of the last generation. */
    result<generation_stats> try_stats() const noexcept
    {
        generation_stats stats{};
        stats.struct_size = sizeof stats;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_generation_get_stats(get(), &stats, &err);
        return detail::made(status, stats, err);
    }
#if LAYERLINE_EXCEPTIONS
    /** As `try_make`. */
    generation() : generation(try_make().value()) {}
    /** As `try_set_max_tokens`; returns this, as all setters do. */
    generation &set_max_tokens(std::size_t tokens) { return try_set_max_tokens(tokens).value(), *this; }
    /** As `try_add_stop`. */
    generation &add_stop(std::string_view text) { return try_add_stop(text).value(), *this; }
    /** As `try_clear_stops`. */
    generation &clear_stops() { return try_clear_stops().value(), *this; }
    /** As `try_draft_from_text`. */
    generation &draft_from_text(std::uint32_t max_drafts) { return try_draft_from_text(max_drafts).value(), *this; }
    /** As `try_draft_with`. */
    generation &draft_with(const model &drafter, std::uint32_t context_length, std::uint32_t max_drafts)
    {
        return try_draft_with(drafter, context_length, max_drafts).value(), *this;
    }
    /** As `try_set_kept_first`. */
    generation &set_kept_first(std::optional<std::size_t> kept) { return try_set_kept_first(kept).value(), *this; }
    /** As `try_set_logprobs`. */
    generation &set_logprobs(std::optional<std::uint32_t> top) { return try_set_logprobs(top).value(), *this; }
    /** As `try_set_constraint`. */
    generation &set_constraint(const constraint *what) { return try_set_constraint(what).value(), *this; }
    /** As `try_stats`. */
    generation_stats stats() const { return try_stats().value(); }
#endif
};

/** Chooses tokens for one sequence: layerline_sampler, greedy until told otherwise. One thread at a time. */
class sampler : public detail::handle<layerline_sampler, layerline_sampler_free> {
    using handle::handle;

public:
    /** Takes over a handle of the C interface. */
    static sampler adopt(layerline_sampler *owned) noexcept { return sampler(owned); }
    /** layerline_sampler_new: a greedy one. */
    static result<sampler> try_make() noexcept
    {
        layerline_sampler *made = layerline_sampler_new();
        return detail::made(made ? LAYERLINE_OK : LAYERLINE_ERROR_OUT_OF_MEMORY, sampler(made));
    }
    /** layerline_sampler_set_temperature: what logits are divided by; 0: greedy. */
    result<void> try_set_temperature(float temperature) noexcept
    {
        return failure(layerline_sampler_set_temperature(get(), temperature));
    }
    /** layerline_sampler_set_top_k: only the `k` likeliest stay; 0: all. */
    result<void> try_set_top_k(std::uint32_t k) noexcept { return failure(layerline_sampler_set_top_k(get(), k)); }
    /** layerline_sampler_set_top_p: only the likeliest that sum to `p` stay; 1: all. */
    result<void> try_set_top_p(float p) noexcept { return failure(layerline_sampler_set_top_p(get(), p)); }
    /** layerline_sampler_set_min_p: only those at least `p` times as probable as the likeliest stay; 0: all. */
    result<void> try_set_min_p(float p) noexcept { return failure(layerline_sampler_set_min_p(get(), p)); }
    /** layerline_sampler_set_repeat_penalty: on the last `last_n` tokens; 1: none. Forgets the tokens seen. */
    result<void> try_set_repeat_penalty(float penalty, std::uint32_t last_n) noexcept
    {
        return failure(layerline_sampler_set_repeat_penalty(get(), penalty, last_n));
    }
    /** layerline_sampler_set_typical_p: the fewest of `p` whose information is nearest to the entropy stay; 1: all. */
    result<void> try_set_typical_p(float p) noexcept
    {
        return failure(layerline_sampler_set_typical_p(get(), p));
    }
    /** layerline_sampler_set_top_n_sigma: only logits at most `n` standard deviations below the greatest stay; 0: all. */
    result<void> try_set_top_n_sigma(float n) noexcept
    {
        return failure(layerline_sampler_set_top_n_sigma(get(), n));
    }
    /** layerline_sampler_set_xtc: of those at least as probable as `threshold` only the last stays, that often. */
    result<void> try_set_xtc(float probability, float threshold) noexcept
    {
        return failure(layerline_sampler_set_xtc(get(), probability, threshold));
    }
    /** layerline_sampler_set_dynamic_temperature: the temperature goes as far up and down; 0: it stays. */
    result<void> try_set_dynamic_temperature(float range, float exponent) noexcept
    {
        return failure(layerline_sampler_set_dynamic_temperature(get(), range, exponent));
    }
    /** layerline_sampler_set_mirostat: Mirostat 2 with a surprise of `tau` bits; 0: off. */
    result<void> try_set_mirostat(float tau, float eta) noexcept
    {
        return failure(layerline_sampler_set_mirostat(get(), tau, eta));
    }
    /** layerline_sampler_set_frequency_penalty: off a logit for each time among the last tokens; 0: nothing. */
    result<void> try_set_frequency_penalty(float penalty) noexcept
    {
        return failure(layerline_sampler_set_frequency_penalty(get(), penalty));
    }
    /** layerline_sampler_set_presence_penalty: off a logit once; 0: nothing. */
    result<void> try_set_presence_penalty(float penalty) noexcept
    {
        return failure(layerline_sampler_set_presence_penalty(get(), penalty));
    }
    /** layerline_sampler_set_dry: against sequences that were there before; 0: off. */
    result<void> try_set_dry(float multiplier, float base, std::uint32_t allowed_length, std::uint32_t last_n) noexcept
    {
        return failure(layerline_sampler_set_dry(get(), multiplier, base, allowed_length, last_n));
    }
    /** layerline_sampler_add_dry_breaker: a text that no sequence of DRY goes across, in tokens of `of`. */
    result<void> try_add_dry_breaker(const model &of, std::string_view text) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_sampler_add_dry_breaker(get(), of.get(), text.data(), text.size(), &err);
        return failure(status, err);
    }
    /** layerline_sampler_clear_dry_breakers: removes all of these texts. */
    result<void> try_clear_dry_breakers() noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_sampler_clear_dry_breakers(get(), &err);
        return failure(status, err);
    }
    /** layerline_sampler_set_logit_biases: what is added to logits of `tokens`; as many `biases`. */
    result<void> try_set_logit_biases(span<const token> tokens, span<const float> biases) noexcept
    {
        if (tokens.size() != biases.size()) {
            return failure(LAYERLINE_ERROR_INVALID_ARGUMENT);
        }
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_sampler_set_logit_biases(get(), tokens.data(), biases.data(), tokens.size(), &err);
        return failure(status, err);
    }
    /** layerline_sampler_set_steps: which steps the chain has, LAYERLINE_STEP_, and their order. */
    result<void> try_set_steps(span<const std::int32_t> steps) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_sampler_set_steps(get(), steps.data(), steps.size(), &err);
        return failure(status, err);
    }
    /** layerline_sampler_set_show_control: whether `generate` gives the text of control tokens. */
    result<void> try_set_show_control(bool show) noexcept
    {
        return failure(layerline_sampler_set_show_control(get(), show));
    }
    /** layerline_sampler_set_seed: starts the random sequence anew. */
    result<void> try_set_seed(std::uint64_t seed) noexcept { return failure(layerline_sampler_set_seed(get(), seed)); }
    /** layerline_sampler_copy: a second one with its settings and all that it has seen. */
    result<sampler> try_copy() const noexcept
    {
        layerline_sampler *made = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_sampler_copy(get(), &made, &err);
        return detail::made(status, sampler(made), err);
    }
    /** layerline_sampler_reset: forgets the tokens seen and starts the random sequence anew. */
    result<void> try_reset() noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_sampler_reset(get(), &err);
        return failure(status, err);
    }
    /** layerline_sampler_accept: shows it tokens that it did not choose, for penalties. */
    result<void> try_accept(span<const token> tokens) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_sampler_accept(get(), tokens.data(), tokens.size(), &err);
        return failure(status, err);
    }
    /** layerline_sampler_sample_logits: a token by given logits, one for each token of the vocabulary. */
    result<token> try_sample(span<const float> logits) noexcept
    {
        token chosen = 0;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_sampler_sample_logits(get(), logits.data(), logits.size(), &chosen, &err);
        return detail::made(status, chosen, err);
    }
    /** layerline_sampler_sample: a token by the last logits of `from`. */
    inline result<token> try_sample(const session &from) noexcept;
#if LAYERLINE_EXCEPTIONS
    /** As `try_make`. */
    sampler() : sampler(try_make().value()) {}
    /** As `try_set_temperature`; returns this, as all setters do. */
    sampler &set_temperature(float temperature) { return try_set_temperature(temperature).value(), *this; }
    /** As `try_set_top_k`. */
    sampler &set_top_k(std::uint32_t k) { return try_set_top_k(k).value(), *this; }
    /** As `try_set_top_p`. */
    sampler &set_top_p(float p) { return try_set_top_p(p).value(), *this; }
    /** As `try_set_min_p`. */
    sampler &set_min_p(float p) { return try_set_min_p(p).value(), *this; }
    /** As `try_set_repeat_penalty`. */
    sampler &set_repeat_penalty(float penalty, std::uint32_t last_n)
    {
        return try_set_repeat_penalty(penalty, last_n).value(), *this;
    }
    /** As `try_set_typical_p`. */
    sampler &set_typical_p(float p)
    {
        return try_set_typical_p(p).value(), *this;
    }
    /** As `try_set_top_n_sigma`. */
    sampler &set_top_n_sigma(float n)
    {
        return try_set_top_n_sigma(n).value(), *this;
    }
    /** As `try_set_xtc`. */
    sampler &set_xtc(float probability, float threshold)
    {
        return try_set_xtc(probability, threshold).value(), *this;
    }
    /** As `try_set_dynamic_temperature`. */
    sampler &set_dynamic_temperature(float range, float exponent)
    {
        return try_set_dynamic_temperature(range, exponent).value(), *this;
    }
    /** As `try_set_mirostat`. */
    sampler &set_mirostat(float tau, float eta)
    {
        return try_set_mirostat(tau, eta).value(), *this;
    }
    /** As `try_set_frequency_penalty`. */
    sampler &set_frequency_penalty(float penalty)
    {
        return try_set_frequency_penalty(penalty).value(), *this;
    }
    /** As `try_set_presence_penalty`. */
    sampler &set_presence_penalty(float penalty)
    {
        return try_set_presence_penalty(penalty).value(), *this;
    }
    /** As `try_set_dry`. */
    sampler &set_dry(float multiplier, float base, std::uint32_t allowed_length, std::uint32_t last_n)
    {
        return try_set_dry(multiplier, base, allowed_length, last_n).value(), *this;
    }
    /** As `try_add_dry_breaker`. */
    sampler &add_dry_breaker(const model &of, std::string_view text)
    {
        return try_add_dry_breaker(of, text).value(), *this;
    }
    /** As `try_clear_dry_breakers`. */
    sampler &clear_dry_breakers() { return try_clear_dry_breakers().value(), *this; }
    /** As `try_set_logit_biases`. */
    sampler &set_logit_biases(span<const token> tokens, span<const float> biases)
    {
        return try_set_logit_biases(tokens, biases).value(), *this;
    }
    /** As `try_set_steps`. */
    sampler &set_steps(span<const std::int32_t> steps) { return try_set_steps(steps).value(), *this; }
    /** As `try_set_show_control`. */
    sampler &set_show_control(bool show) { return try_set_show_control(show).value(), *this; }
    /** As `try_set_seed`. */
    sampler &set_seed(std::uint64_t seed) { return try_set_seed(seed).value(), *this; }
    /** As `try_sample`. */
    token sample(const session &from) { return try_sample(from).value(); }
    /** As `try_sample`. */
    token sample(span<const float> logits) { return try_sample(logits).value(); }
    /** As `try_copy`. */
    sampler copy() const { return try_copy().value(); }
    /** As `try_reset`. */
    void reset() { try_reset().value(); }
    /** As `try_accept`. */
    void accept(span<const token> tokens) { try_accept(tokens).value(); }
#endif
};

/** A point of a session that it can go back to: layerline_checkpoint. It keeps the model alive, not the session. */
class checkpoint : public detail::handle<layerline_checkpoint, layerline_checkpoint_free> {
    using handle::handle;

public:
    /** Takes over a handle of the C interface. */
    static checkpoint adopt(layerline_checkpoint *owned) noexcept { return checkpoint(owned); }
    /** layerline_checkpoint_position: tokens the session held; 0 for an empty one. */
    std::size_t position() const noexcept { return static_cast<std::size_t>(layerline_checkpoint_position(get())); }
    /** layerline_checkpoint_memory_bytes: what it takes from the model's budget; 0 for an empty one. */
    std::uint64_t memory_bytes() const noexcept { return layerline_checkpoint_memory_bytes(get()); }
};

/** A low-rank adapter (LoRA) of a model, in memory: layerline_adapter. It may be freed before sessions that have it. */
class adapter : public detail::handle<layerline_adapter, layerline_adapter_free> {
    using handle::handle;

public:
    /** Takes over a handle of the C interface. */
    static adapter adopt(layerline_adapter *owned) noexcept { return adapter(owned); }
    /** layerline_adapter_open: reads one of a model from a GGUF file. */
    static result<adapter> try_open(const model &of, std::string_view path) noexcept
    {
        const detail::terminated name(path);
        if (name.status() != LAYERLINE_OK) return failure(name.status());
        layerline_adapter *made = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_adapter_open(of.get(), name.get(), &made, &err);
        return detail::made(status, adapter(made), err);
    }
    /** layerline_adapter_open_source: reads one out of storage of the host's own, which it needs no longer afterwards. */
    static result<adapter> try_open(const model &of, const source &from) noexcept
    {
        layerline_adapter *made = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_adapter_open_source(of.get(), from.get(), &made, &err);
        return detail::made(status, adapter(made), err);
    }
    /** layerline_adapter_memory_bytes: what it takes from the model's budget; 0 for an empty one. */
    std::uint64_t memory_bytes() const noexcept { return layerline_adapter_memory_bytes(get()); }
#if LAYERLINE_EXCEPTIONS
    /** As `try_open`. */
    adapter(const model &of, std::string_view path) : adapter(try_open(of, path).value()) {}
    /** As `try_open`. */
    adapter(const model &of, const source &from) : adapter(try_open(of, from).value()) {}
#endif
};

/** One sequence of tokens on a model: layerline_session. One thread at a time, but for `interrupt`. */
class session : public detail::handle<layerline_session, layerline_session_free> {
    using handle::handle;

public:
    /** Takes over a handle of the C interface. */
    static session adopt(layerline_session *owned) noexcept { return session(owned); }
    /** layerline_session_new: `context_length` tokens at most; 0: what the model's options say. */
    static result<session> try_make(const model &on, std::uint32_t context_length = 0) noexcept
    {
        layerline_session *made = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_new(on.get(), context_length, &made, &err);
        return detail::made(status, session(made), err);
    }
    /** layerline_session_copy: a second session with its tokens; `context_length` 0: as this one's. */
    result<session> try_copy(std::uint32_t context_length = 0) const noexcept
    {
        layerline_session *made = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_copy(get(), context_length, &made, &err);
        return detail::made(status, session(made), err);
    }
    /** layerline_session_save: writes what it holds to a file, which replaces another of that name. */
    result<void> try_save(std::string_view path) const noexcept
    {
        const detail::terminated name(path);
        if (name.status() != LAYERLINE_OK) return failure(name.status());
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_save(get(), name.get(), &err);
        return failure(status, err);
    }
    /** layerline_session_load: takes what `try_save` wrote in place of what it holds. */
    result<void> try_load(std::string_view path) noexcept
    {
        const detail::terminated name(path);
        if (name.status() != LAYERLINE_OK) return failure(name.status());
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_load(get(), name.get(), &err);
        return failure(status, err);
    }
    /** layerline_session_save_buffer: writes the same to `room`; how many bytes. */
    result<std::size_t> try_save_state(span<std::uint8_t> room) const noexcept
    {
        std::size_t needed = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_save_buffer(get(), room.data(), room.size(), &needed, &err);
        return detail::made(status, needed, err, status == LAYERLINE_ERROR_BUFFER_TOO_SMALL ? needed : 0);
    }
    /** layerline_session_load_buffer: takes what `try_save_state` or `try_save` wrote in place of what it holds. */
    result<void> try_load_state(span<const std::uint8_t> state) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_load_buffer(get(), state.data(), state.size(), &err);
        return failure(status, err);
    }
    /** layerline_session_checkpoint: keeps the point where it is now. */
    result<layerline::checkpoint> try_checkpoint() noexcept
    {
        layerline_checkpoint *made = nullptr;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_checkpoint(get(), &made, &err);
        return detail::made(status, layerline::checkpoint::adopt(made), err);
    }
    /** layerline_session_restore: goes back to a checkpoint of this session. */
    result<void> try_restore(const layerline::checkpoint &point) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_restore(get(), point.get(), &err);
        return failure(status, err);
    }
    /** layerline_session_forward: runs tokens through the model, after those it holds. */
    result<void> try_forward(span<const token> tokens, logit_rows rows = logit_rows::last,
                             embedding_rows embeddings = embedding_rows::none) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_session_forward(get(), tokens.data(), tokens.size(), static_cast<std::int32_t>(rows),
                                      static_cast<std::int32_t>(embeddings), &err);
        return failure(status, err);
    }
    /** layerline_session_submit: begins the same in the background; the ticket's event tells when it is done. */
    result<ticket> try_submit(span<const token> tokens, logit_rows rows = logit_rows::last,
                                      embedding_rows embeddings = embedding_rows::none) noexcept
    {
        ticket given = 0;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_session_submit(get(), tokens.data(), tokens.size(), static_cast<std::int32_t>(rows),
                                     static_cast<std::int32_t>(embeddings), &given, &err);
        return detail::made(status, given, err);
    }
    /** layerline_session_interrupt: ends the pass with status::cancelled, or the next one where none runs. Any thread. */
    void interrupt() const noexcept { layerline_session_interrupt(get()); }
    /** layerline_session_clear_interrupt: takes back an interrupt that no pass has seen. */
    void clear_interrupt() const noexcept { layerline_session_clear_interrupt(get()); }
    /** layerline_session_logits: one row of the last pass; the session's, valid until its next pass, truncation or load. */
    result<span<const float>> try_logits(std::size_t row = 0) const noexcept
    {
        const float *values = nullptr;
        std::size_t count = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_logits(get(), row, &values, &count, &err);
        return detail::made(status, span<const float>(values, count), err);
    }
    /** layerline_session_embeddings: one that the last pass left; the session's, valid until its next pass or truncation. */
    result<span<const float>> try_embeddings(std::size_t row = 0) const noexcept
    {
        const float *values = nullptr;
        std::size_t count = 0;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_embeddings(get(), row, &values, &count, &err);
        return detail::made(status, span<const float>(values, count), err);
    }
    /** layerline_session_get_progress: how far the running pass has come, from any thread. */
    result<layerline::progress> try_progress() const noexcept
    {
        layerline::progress now{};
        now.struct_size = sizeof now;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_get_progress(get(), &now, &err);
        return detail::made(status, now, err);
    }
    /** layerline_session_get_info: facts of the session. */
    result<session_info> try_info() const noexcept
    {
        session_info info{};
        info.struct_size = sizeof info;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_get_info(get(), &info, &err);
        return detail::made(status, info, err);
    }
    /** Of `try_info`: tokens it holds. */
    result<std::size_t> try_position() const noexcept
    {
        session_info info{};
        info.struct_size = sizeof info;
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_get_info(get(), &info, &err);
        return detail::made(status, static_cast<std::size_t>(info.position), err);
    }
    /** layerline_session_reuse_prefix: keeps what it has in common with `tokens`, and says how many those are. */
    result<std::size_t> try_reuse_prefix(span<const token> tokens) noexcept
    {
        std::size_t kept = 0;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_session_reuse_prefix(get(), tokens.data(), tokens.size(), &kept, &err);
        return detail::made(status, kept, err);
    }
    /** layerline_session_common_prefix: how many of the first of `tokens` it holds. */
    result<std::size_t> try_common_prefix(span<const token> tokens) const noexcept
    {
        std::size_t common = 0;
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_session_common_prefix(get(), tokens.data(), tokens.size(), &common, &err);
        return detail::made(status, common, err);
    }
    /** layerline_session_truncate: forgets all after the first `tokens`. */
    result<void> try_truncate(std::size_t tokens) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status = layerline_session_truncate(get(), tokens, &err);
        return failure(status, err);
    }
    /** layerline_session_set_adapters: those of further passes with their scales, as many of both; none: the model alone. */
    result<void> try_set_adapters(span<const layerline_adapter *const> adapters, span<const float> scales) noexcept
    {
        if (adapters.size() != scales.size()) return failure(LAYERLINE_ERROR_INVALID_ARGUMENT);
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_session_set_adapters(get(), adapters.data(), scales.data(), adapters.size(), &err);
        return failure(status, err);
    }
    /**
     * layerline_session_generate: runs a prompt and gives each token to `on_token(token,
                                                                                   std::string_view piece)`, which
     * returns false to stop, true or nothing to go on. An exception that leaves `on_token` ends the program here.
     */
    template <class F>
    result<void> try_generate(sampler &with, span<const token> prompt, std::size_t max_tokens, F &&on_token) noexcept
    {
        auto callback = [](token given, const char *piece, std::size_t length, void *data) noexcept -> bool {
            return call(*static_cast<std::remove_reference_t<F> *>(data), given, std::string_view(piece, length));
        };
        return run(with, prompt, max_tokens, callback, const_cast<void *>(static_cast<const void *>(&on_token)));
    }
    /** layerline_session_generate_with: the same with the settings of a generation. */
    template <class F>
    result<void> try_generate(generation &how, sampler &with, span<const token> prompt, F &&on_token) noexcept
    {
        auto callback = [](token given, const char *piece, std::size_t length, void *data) noexcept -> bool {
            return call(*static_cast<std::remove_reference_t<F> *>(data), given, std::string_view(piece, length));
        };
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_session_generate_with(get(), how.get(), with.get(), prompt.data(), prompt.size(), callback,
                                            const_cast<void *>(static_cast<const void *>(&on_token)), &err);
        return failure(status, err);
    }
    /**
     * layerline_session_generate_detailed: the same, and each token comes with its log-probabilities, as
     * `on_token(const generated_token &)`.
     */
    template <class F>
    result<void> try_generate_detailed(generation &how, sampler &with, span<const token> prompt, F &&on_token) noexcept
    {
        auto callback = [](const generated_token *given, void *data) noexcept -> bool {
            return call(*static_cast<std::remove_reference_t<F> *>(data), *given);
        };
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_session_generate_detailed(get(), how.get(), with.get(), prompt.data(), prompt.size(), callback,
                                                const_cast<void *>(static_cast<const void *>(&on_token)), &err);
        return failure(status, err);
    }
#if LAYERLINE_EXCEPTIONS
    /** As `try_make`. */
    explicit session(const model &on,
                     std::uint32_t context_length = 0) : session(try_make(on, context_length).value()) {}
    /** As `try_copy`. */
    session copy(std::uint32_t context_length = 0) const { return try_copy(context_length).value(); }
    /** As `try_save`. */
    void save(std::string_view path) const { try_save(path).value(); }
    /** As `try_load`. */
    void load(std::string_view path) { try_load(path).value(); }
    /** As `try_save_state`, of any length. */
    std::vector<std::uint8_t> save_state() const
    {
        std::vector<std::uint8_t> state;
        auto written = try_save_state(state);
        if (!written && written.error().status() == status::buffer_too_small) {
            state.resize(written.error().needed());
            written = try_save_state(state);
        }
        state.resize(written.value());
        return state;
    }
    /** As `try_load_state`. */
    void load_state(span<const std::uint8_t> state) { try_load_state(state).value(); }
    /** As `try_checkpoint`. */
    layerline::checkpoint checkpoint() { return try_checkpoint().value(); }
    /** As `try_restore`. */
    void restore(const layerline::checkpoint &point) { try_restore(point).value(); }
    /** As `try_forward`. */
    void forward(span<const token> tokens, logit_rows rows = logit_rows::last,
                 embedding_rows embeddings = embedding_rows::none)
    {
        try_forward(tokens, rows, embeddings).value();
    }
    /** As `try_submit`. */
    ticket submit(span<const token> tokens, logit_rows rows = logit_rows::last,
                          embedding_rows embeddings = embedding_rows::none)
    {
        return try_submit(tokens, rows, embeddings).value();
    }
    /** As `try_logits`. */
    span<const float> logits(std::size_t row = 0) const { return try_logits(row).value(); }
    /** As `try_embeddings`. */
    span<const float> embeddings(std::size_t row = 0) const { return try_embeddings(row).value(); }
    /** As `try_info`. */
    session_info info() const { return try_info().value(); }
    /** As `try_progress`. */
    layerline::progress progress() const { return try_progress().value(); }
    /** As `try_position`. */
    std::size_t position() const { return try_position().value(); }
    /** As `try_reuse_prefix`. */
    std::size_t reuse_prefix(span<const token> tokens) { return try_reuse_prefix(tokens).value(); }
    /** As `try_common_prefix`. */
    std::size_t common_prefix(span<const token> tokens) const { return try_common_prefix(tokens).value(); }
    /** As `try_truncate`. */
    void truncate(std::size_t tokens) { try_truncate(tokens).value(); }
    /** As `try_set_adapters`. */
    void set_adapters(span<const layerline_adapter *const> adapters, span<const float> scales)
    {
        try_set_adapters(adapters, scales).value();
    }
    /** As `try_generate`; an exception that leaves `on_token` stops the generation and then leaves this too. */
    template <class F>
    void generate(sampler &with, span<const token> prompt, std::size_t max_tokens, F &&on_token)
    {
        rethrowing(on_token, [&](auto &guarded) { return try_generate(with, prompt, max_tokens, guarded); });
    }
    /** As `try_generate`, likewise. */
    template <class F>
    void generate(generation &how, sampler &with, span<const token> prompt, F &&on_token)
    {
        rethrowing(on_token, [&](auto &guarded) { return try_generate(how, with, prompt, guarded); });
    }
    /** As `try_generate_detailed`, likewise. */
    template <class F>
    void generate_detailed(generation &how, sampler &with, span<const token> prompt, F &&on_token)
    {
        rethrowing(on_token, [&](auto &guarded) { return try_generate_detailed(how, with, prompt, guarded); });
    }
#endif

private:
#if LAYERLINE_EXCEPTIONS
    template <class F, class G>
    static void rethrowing(F &on_token, G &&run)
    {
        std::exception_ptr thrown;
        auto guarded = [&](const auto &...given) noexcept -> bool {
            try {
                return call(on_token, given...);
            } catch (...) {
                thrown = std::current_exception();
                return false;
            }
        };
        auto ended = run(guarded);
        if (thrown) std::rethrow_exception(thrown);
        ended.value();
    }
#endif
    template <class F, class... A>
    static bool call(F &on_token, const A &...given)
    {
        if constexpr (std::is_void_v<std::invoke_result_t<F &, const A &...>>) {
            on_token(given...);
            return true;
        } else {
            return on_token(given...);
        }
    }
    result<void> run(sampler &with, span<const token> prompt, std::size_t max_tokens, layerline_token_callback callback,
                     void *data) noexcept
    {
        layerline_error *err = nullptr;
        const layerline_status status =
            layerline_session_generate(get(), with.get(), prompt.data(), prompt.size(), max_tokens, callback, data,
                                       &err);
        return failure(status, err);
    }
};

/** What a session takes in within a batch, and how that ended. It views `tokens`, and `who`, as long as it is used. */
class batch_input : layerline_batch_input {
    friend result<void> try_forward_batch(const model &on, span<batch_input> inputs) noexcept;

public:
    /** An input of a session. */
    batch_input(layerline::session &who, span<const token> tokens, logit_rows rows = logit_rows::last,
                embedding_rows embeddings = embedding_rows::none) noexcept
        : layerline_batch_input{sizeof(layerline_batch_input), static_cast<std::int32_t>(rows),
                                static_cast<std::int32_t>(embeddings), LAYERLINE_OK, who.get(), tokens.data(),
                                tokens.size(), nullptr}
    {
    }
    /** Takes over what `other` asks for, and its error. */
    batch_input(batch_input &&other) noexcept : layerline_batch_input(other) { other.error = nullptr; }
    /** Not copied: the error has one owner. */
    batch_input(const batch_input &) = delete;
    /** As the constructor. */
    batch_input &operator=(const batch_input &) = delete;
    /** Frees the error. */
    ~batch_input() { layerline_error_free(error); }

    /** How its pass ended, with the message, once: a second call has the status alone. */
    result<void> take_outcome() noexcept
    {
        layerline_error *const why = error;
        error = nullptr;
        return layerline::failure(status, why);
    }
};
static_assert(sizeof(batch_input) == sizeof(layerline_batch_input), "an array of them is one of the C interface");

/** layerline_model_forward_batch: passes of several sessions, with the weights read once for all of them. Success when all
    have succeeded; else the first failure, and each input has its own. */
inline result<void> try_forward_batch(const model &on, span<batch_input> inputs) noexcept
{
    for (batch_input &input : inputs) (void)input.take_outcome();
    layerline_error *err = nullptr;
    const layerline_status status = layerline_model_forward_batch(on.get(), inputs.data(), inputs.size(), &err);
    return failure(status, err);
}
#if LAYERLINE_EXCEPTIONS
/** As `try_forward_batch`. */
inline void forward_batch(const model &on, span<batch_input> inputs) { try_forward_batch(on, inputs).value(); }
#endif

inline result<token> sampler::try_sample(const session &from) noexcept
{
    token chosen = 0;
    layerline_error *err = nullptr;
    const layerline_status status = layerline_sampler_sample(get(), from.get(), &chosen, &err);
    return detail::made(status, chosen, err);
}

} // namespace layerline

#endif
