// layerline.hpp in a program without exceptions and type information, as games and embedded programs are built.
#include "layerline.hpp"

#include "support.h"

#include <array>
#include <chrono>
#include <cstring>
#include <type_traits>

namespace ll = layerline;

namespace {

static_assert(LAYERLINE_EXCEPTIONS == 0);
// What would throw is not there, rather than there and deadly.
static_assert(!std::is_default_constructible_v<ll::options> && !std::is_constructible_v<ll::session, ll::model &>);
static_assert(std::is_nothrow_move_constructible_v<ll::result<ll::model>>);

const std::array<ll::token, 3> PROMPT{1, 40, 50};

template <class T>
bool fails(ll::status expected, const ll::result<T> &found)
{
    return !found && found.error().status() == expected && found.error().message()[0] != '\0';
}

template <class T>
T required(ll::result<T> made)
{
    if (!made) check_failed(__FILE__, __LINE__, made.error().message());
    REQUIRE(made);
    return *std::move(made);
}

ll::options small_options()
{
    auto options = required(ll::options::try_make());
    CHECK(options.try_set_context_length(64) && options.try_set_threads(2) && options.try_set_chunk_length(16));
    CHECK(options.try_set_share_sweeps(true) && options.try_set_predictor(false));
    CHECK(options.try_set_prefetch(true) && options.try_set_prefetch_distance(0) && options.try_set_cache_layers(0));
    CHECK(options.try_set_io(ll::io_mode::automatic) && options.try_set_memory_budget(std::uint64_t{1} << 30));
    return options;
}

void nothing_throws()
{
    ll::model *m = nullptr;
    ll::session *s = nullptr;
    ll::sampler *p = nullptr;
    ll::options *o = nullptr;
    ll::span<ll::event> e;
    ll::span<char> c;
    ll::span<ll::token> t;
    const std::chrono::seconds second(1);
    const auto ignore = [](ll::token, std::string_view) {};
    static_assert(noexcept(m->try_info()) && noexcept(m->try_stats()) && noexcept(m->try_metadata("", c)));
    static_assert(noexcept(m->try_poll(e)) && noexcept(m->try_wait(e)) && noexcept(m->try_prefetch(0, 1)));
    static_assert(noexcept(m->try_wait_for(second, e)) && noexcept(m->try_cancel(1)));
    static_assert(noexcept(m->try_tokenize("", {}, t)) && noexcept(m->try_detokenize(t, c)) && noexcept(m->try_is_end(1)));
    static_assert(noexcept(m->try_format_chat({}, true, c)) && noexcept(m->try_format_chat_json("", true, c)));
    static_assert(noexcept(m->try_tokenize_chat({}, true, t)) && noexcept(m->try_tokenize_chat_json("", true, t)));
    static_assert(noexcept(m->try_state(0)) && noexcept(m->event_handle()) && noexcept(m->try_set_memory_budget(0)));
    static_assert(noexcept(ll::model::try_make("", *o)) && noexcept(ll::session::try_make(*m)));
    static_assert(noexcept(s->try_forward(t)) && noexcept(s->try_submit(t)) && noexcept(s->interrupt()));
    static_assert(noexcept(s->try_logits()) && noexcept(s->try_position()) && noexcept(s->try_truncate(0)));
    static_assert(noexcept(s->try_copy()) && noexcept(s->try_save("")) && noexcept(s->try_load("")));
    static_assert(noexcept(s->try_save_state({})) && noexcept(s->try_load_state({})) && noexcept(s->try_checkpoint()));
    static_assert(noexcept(s->try_generate(*p, t, 1, ignore)));
    static_assert(noexcept(p->try_sample(*s)) && noexcept(p->try_set_seed(1)) && noexcept(o->try_set_threads(1)));
    static_assert(noexcept(ll::try_plan_memory("", *o)) && noexcept(ll::budget::try_make(1)));
    (void)m, (void)s, (void)p, (void)o, (void)second, (void)ignore;
}

void failures_are_values(const ll::options &options)
{
    const auto missing = ll::model::try_make("/no/such/model", options);
    CHECK(fails(ll::status::io, missing) && std::strstr(missing.error().message(), "/no/such/model") != nullptr);
    CHECK(fails(ll::status::io, ll::try_plan_memory("/no/such/model", options)));
    CHECK(fails(ll::status::invalid_argument, ll::model::try_make(std::string_view("a\0b", 3), options)));
#ifdef _WIN32
    CHECK(fails(ll::status::unsupported, ll::model::try_make(-1, 0, 0, options)));
#else
    CHECK(fails(ll::status::invalid_argument, ll::model::try_make(-1, 0, 0, options)));
#endif
    CHECK(fails(ll::status::invalid_argument, ll::sampler::adopt(nullptr).try_set_seed(1)));
    CHECK(ll::failure().status() == ll::status::ok && ll::result<void>());
}

void text_goes_into_the_callers_room(const ll::model &model)
{
    std::array<ll::token, 64> tokens;
    std::array<char, 64> text;
    const auto none = model.try_tokenize("words", ll::tokenize_flags::none, {});
    CHECK(fails(ll::status::buffer_too_small, none) && none.error().needed() > 3);
    auto count = model.try_tokenize("words", ll::tokenize_flags::none, tokens);
    REQUIRE(count && *count == none.error().needed());
    const ll::span<const ll::token> all(tokens.data(), *count);
    auto whole = model.try_detokenize(all, text);
    REQUIRE(whole && whole->size() >= 5 && whole->substr(whole->size() - 5) == "words");
    const std::size_t size = whole->size();
    const auto tight = model.try_detokenize(all, ll::span(text.data(), size));
    CHECK(fails(ll::status::buffer_too_small, tight) && tight.error().needed() == size + 1); // with the NUL
    CHECK(model.try_detokenize(all, ll::span(text.data(), size + 1)));
    auto name = model.try_metadata("general.architecture", text);
    CHECK(name && *name == "llama");
    CHECK(fails(ll::status::buffer_too_small, model.try_metadata("general.architecture", ll::span(text.data(), 5))));
    CHECK(fails(ll::status::not_found, model.try_metadata("no.such.key", text)));
    auto end = model.try_is_end(40);
    CHECK(end && !*end);
}

void passes_run_and_events_come(ll::model &model)
{
    std::array<ll::event, 8> room;
    ll::session session = required(ll::session::try_make(model, 32));
    ll::sampler greedy = required(ll::sampler::try_make());
    CHECK(greedy.try_set_temperature(0) && greedy.try_set_top_k(0) && greedy.try_set_top_p(1) && greedy.try_set_min_p(0));
    CHECK(greedy.try_set_repeat_penalty(1, 0) && greedy.try_set_seed(1));
    CHECK(fails(ll::status::invalid_argument, greedy.try_sample(session)));
    CHECK(session.try_forward(PROMPT));
    auto chosen = greedy.try_sample(session);
    CHECK(chosen);
    CHECK(session.try_truncate(0));
    ll::token first = -1;
    CHECK(session.try_generate(greedy, PROMPT, 1, [&](ll::token token, std::string_view) { first = token; }));
    CHECK(chosen && first == *chosen);

    {
        ll::session other = required(ll::session::try_make(model, 32));
        ll::batch_input alone(other, PROMPT);
        CHECK(ll::try_forward_batch(model, ll::span(&alone, 1)) && alone.take_outcome());
        static_assert(noexcept(ll::try_forward_batch(model, ll::span(&alone, 1))));
    }

    auto submitted = session.try_submit(PROMPT, ll::logit_rows::none);
    REQUIRE(submitted);
    auto events = model.try_wait(room);
    CHECK(events && events->size() == 1 && (*events)[0].ticket == *submitted && (*events)[0].status == ll::status::ok);
    CHECK(fails(ll::status::invalid_argument, session.try_logits()));
    auto position = session.try_position();
    CHECK(position && *position == 2 * PROMPT.size());
    CHECK(model.try_cancel(*submitted));
    auto asked = model.try_prefetch(0, 1);
    CHECK(asked && model.try_wait_for(std::chrono::seconds(60), room));
    CHECK(model.try_poll(room) && model.try_state(0));
    auto copy = session.try_copy();
    CHECK(copy && copy->try_position() && *copy->try_position() == *position);
    CHECK(fails(ll::status::io, session.try_save("/no/such/folder/state")));
    CHECK(fails(ll::status::io, session.try_load("/no/such/folder/state")));
    CHECK(fails(ll::status::invalid_argument, session.try_save(std::string_view("a\0b", 3))));
    std::array<std::uint8_t, 8> little{};
    auto saved = session.try_save_state(little);
    CHECK(!saved && saved.error().status() == ll::status::buffer_too_small && saved.error().needed() > little.size());
    CHECK(fails(ll::status::format, session.try_load_state(little)));
    auto point = session.try_checkpoint();
    CHECK(point && point->position() == *position && session.try_restore(*point));
    session.interrupt();
    CHECK(fails(ll::status::context_full, session.try_forward(std::array<ll::token, 64>{})));
}

} // namespace

int main()
{
    nothing_throws();
    auto options = small_options();
    failures_are_values(options);
    auto model = required(ll::model::try_make(data_path(TINY_MODEL), options));
    auto info = model.try_info();
    CHECK(info && info->layer_count == TINY_LAYERS);
    text_goes_into_the_callers_room(model);
    passes_run_and_events_come(model);
    auto stats = model.try_stats();
    CHECK(stats && stats->passes > 0);
    auto shared = required(ll::budget::try_make(std::uint64_t{1} << 30));
    CHECK(shared.try_set_bytes(std::uint64_t{1} << 29) && options.try_set_shared_budget(shared));
    CHECK(options.try_clear_shared_budget());
    return check_result();
}
