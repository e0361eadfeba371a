// The header as C++17 sees it: C linkage, no warnings, handles that fit unique_ptr.
#include "layerline.h"
#include "layerline.h"

#include <cstdint>
#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#include <type_traits>
#include <vector>

namespace {

template <auto function>
struct release {
    template <typename T>
    void operator()(T *handle) const { function(handle); }
};

using error_handle = std::unique_ptr<layerline_error, release<layerline_error_free>>;
using options_handle = std::unique_ptr<layerline_options, release<layerline_options_free>>;
using model_handle = std::unique_ptr<layerline_model, release<layerline_model_free>>;
using session_handle = std::unique_ptr<layerline_session, release<layerline_session_free>>;
using sampler_handle = std::unique_ptr<layerline_sampler, release<layerline_sampler_free>>;

static_assert(std::is_same_v<layerline_status, std::int32_t>);
static_assert(std::is_standard_layout_v<layerline_plan> && std::is_standard_layout_v<layerline_stats>);
static_assert(std::is_same_v<decltype(&layerline_model_free), void (*)(layerline_model *)>);

int failures = 0;

void check(bool good, const char *what)
{
    if (!good) {
        std::fprintf(stderr, "failed: %s\n", what);
        ++failures;
    }
}

// A callback may be a lambda that captures nothing; what it needs comes through user_data.
bool generate(layerline_session *session, layerline_sampler *sampler, std::string &text)
{
    const std::vector<std::int32_t> prompt{1, 40, 50};
    layerline_token_callback callback = [](std::int32_t, const char *piece, std::size_t length, void *user_data) {
        static_cast<std::string *>(user_data)->append(piece, length);
        return true;
    };
    return layerline_session_generate(session, sampler, prompt.data(), prompt.size(), 8, callback, &text, nullptr) == LAYERLINE_OK;
}

} // namespace

int main()
{
    options_handle options{layerline_options_new()};
    check(options != nullptr, "options");
    check(layerline_options_set_context_length(options.get(), 64) == LAYERLINE_OK, "context length");

    layerline_model *raw_model = nullptr;
    layerline_error *raw_error = nullptr;
    check(layerline_model_open("/no/such/model", options.get(), &raw_model, &raw_error) == LAYERLINE_ERROR_IO, "missing file");
    const error_handle error{raw_error};
    check(error != nullptr && std::strlen(layerline_error_message(error.get())) > 0, "its message");

    const std::string path = std::string(LAYERLINE_TEST_DATA) + "/arch/llama.gguf";
    if (layerline_model_open(path.c_str(), options.get(), &raw_model, nullptr) != LAYERLINE_OK) {
        check(false, "open");
        return 1;
    }
    model_handle model{raw_model};
    layerline_session *raw_session = nullptr;
    check(layerline_session_new(model.get(), 0, &raw_session, nullptr) == LAYERLINE_OK, "session");
    const session_handle session{raw_session};
    const sampler_handle sampler{layerline_sampler_new()};
    model.reset(); // the session keeps it alive
    std::string text;
    check(generate(session.get(), sampler.get(), text), "generate");
    return failures == 0 ? 0 : 1;
}
