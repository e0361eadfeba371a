// layerline.hpp as most programs use it: owners, views, and exceptions that say what the C interface said.
#include "layerline.hpp"
#include "layerline.hpp"

#include "support.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdio>
#include <memory>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

#include <fcntl.h>
#include <unistd.h>

namespace ll = layerline;

namespace {

static_assert(LAYERLINE_EXCEPTIONS == 1);

template <class T>
constexpr bool is_owner = !std::is_copy_constructible_v<T> && !std::is_copy_assignable_v<T> &&
                          std::is_nothrow_move_constructible_v<T> && std::is_nothrow_move_assignable_v<T> &&
                          sizeof(T) == sizeof(void *);
static_assert(is_owner<ll::options> && is_owner<ll::budget> && is_owner<ll::model> && is_owner<ll::session> &&
              is_owner<ll::sampler> && is_owner<ll::checkpoint>);
static_assert(std::is_nothrow_copy_constructible_v<ll::error> && std::is_base_of_v<std::exception, ll::error>);

// Spans take what keeps values in a row, and never take const away.
static_assert(std::is_convertible_v<const std::vector<ll::token> &, ll::span<const ll::token>>);
static_assert(std::is_convertible_v<std::array<ll::event, 4> &, ll::span<ll::event>>);
static_assert(std::is_convertible_v<ll::span<ll::token>, ll::span<const ll::token>>);
static_assert(!std::is_convertible_v<const std::vector<ll::token> &, ll::span<ll::token>>);
static_assert(!std::is_convertible_v<std::vector<long long> &, ll::span<const ll::token>>);

const std::vector<ll::token> PROMPT{1, 40, 50};

template <class F>
void throws(ll::status expected, F &&call)
{
    try {
        call();
        CHECK(!"it did not throw");
    } catch (const ll::error &error) {
        CHECK_STATUS(static_cast<layerline_status>(expected), static_cast<layerline_status>(error.status()));
        CHECK(error.what()[0] != '\0');
    }
}

ll::options small_options()
{
    ll::options options;
    options.set_context_length(64).set_threads(2).set_chunk_length(16).set_prefetch(true).set_prefetch_distance(0);
    options.set_kv_type(ll::kv_type::f16).set_profile("/no/such/profile").set_profile({});
    options.set_cache_layers(0).set_io(ll::io_mode::buffered).set_memory_budget(std::uint64_t{1} << 30);
    return options;
}

void failures_carry_status_and_message()
{
    throws(ll::status::io, [] { ll::model("/no/such/model", small_options()); });
    try {
        ll::model missing("/no/such/model", small_options());
    } catch (const std::exception &error) {
        CHECK(std::string(error.what()).find("/no/such/model") != std::string::npos);
    }
    // A view is taken as it is: not to the first NUL, not beyond its end, at any length.
    const std::string path = data_path(TINY_MODEL);
    throws(ll::status::invalid_argument, [&] { ll::model(path + '\0' + "more", small_options()); });
    CHECK(ll::model(std::string_view(path + "XYZ").substr(0, path.size()), small_options()).info().layer_count == 2);
    throws(ll::status::io, [] { ll::model(std::string(3000, 'x'), small_options()); });
    std::string roundabout = path.substr(0, path.rfind('/') + 1);
    for (int i = 0; i < 200; i++) roundabout += "./";
    CHECK(ll::model(roundabout + path.substr(path.rfind('/') + 1), small_options()).info().layer_count == 2);
    throws(ll::status::memory_budget, [&] {
        ll::options options = small_options();
        options.set_memory_budget(4096);
        ll::model(path, options);
    });
    throws(ll::status::invalid_argument, [] { ll::options().set_io(static_cast<ll::io_mode>(17)); });
}

void an_empty_handle_is_refused()
{
    ll::options options = small_options();
    const ll::options moved = std::move(options);
    CHECK(!options && moved);
    throws(ll::status::invalid_argument, [&] { options.set_threads(1); });
    throws(ll::status::invalid_argument, [&] { ll::model(data_path(TINY_MODEL), options); });
    ll::budget shared(1 << 20);
    const ll::budget taken = std::move(shared);
    throws(ll::status::invalid_argument, [&] { ll::options().set_shared_budget(shared); });
    ll::model none = ll::model::adopt(nullptr);
    throws(ll::status::invalid_argument, [&] { none.info(); });
    throws(ll::status::invalid_argument, [&] { none.metadata("general.name"); });
    throws(ll::status::invalid_argument, [&] { none.tokenize("text"); });
    throws(ll::status::invalid_argument, [&] { ll::session{none}; });
    CHECK(none.event_handle() == -1);
    ll::session::adopt(nullptr).interrupt();
}

void handles_move_and_are_given_away(ll::model &model)
{
    ll::session first(model), second(model);
    first.forward(PROMPT);
    second = std::move(first);
    CHECK(second.position() == PROMPT.size());
    layerline_session *raw = second.release();
    CHECK(!second && raw != nullptr);
    CHECK(ll::session::adopt(raw).position() == PROMPT.size());
}

void a_model_says_what_it_is(ll::model &model)
{
    CHECK(model.info().vocab_size == TINY_VOCAB && model.info().layer_count == TINY_LAYERS);
    CHECK(model.metadata("general.architecture") == "llama");
    throws(ll::status::not_found, [&] { model.metadata("no.such.key"); });
    throws(ll::status::invalid_argument, [&] { model.metadata(std::string("general.architecture\0", 21)); });
    CHECK(model.stats().budget_bytes == std::uint64_t{1} << 30);
    const ll::memory_plan plan = ll::plan_memory(data_path(TINY_MODEL), small_options());
    CHECK(plan.layer_count == TINY_LAYERS && plan.floor_bytes <= plan.full_bytes);
    model.set_memory_budget(plan.full_bytes * 2);
    CHECK(model.stats().budget_bytes == plan.full_bytes * 2);
    throws(ll::status::memory_budget, [&] { model.set_memory_budget(4096); });
#ifdef _WIN32
    throws(ll::status::unsupported, [&] { ll::model(0, 0, 0, small_options()); });
#else
    const int fd = open(data_path(TINY_MODEL), O_RDONLY);
    CHECK(ll::model(fd, 0, 0, small_options()).info().layer_count == TINY_LAYERS);
    close(fd);
    throws(ll::status::invalid_argument, [&] { ll::model(-1, 0, 0, small_options()); });
#endif
}

void text_of_any_length(const ll::model &model)
{
    std::string text;
    // No spaces: this vocabulary spells them by bytes of their own, as it does the one before every text.
    for (int i = 0; i < 500; i++) text += "a-sea-of-words,";
    const std::vector<ll::token> tokens = model.tokenize(text);
    CHECK(tokens.size() > 100);
    CHECK(model.detokenize(tokens).find(text) != std::string::npos);
    CHECK(model.tokenize("").empty() && model.detokenize({}).empty());
    CHECK(model.tokenize("a", ll::tokenize_flags::bos | ll::tokenize_flags::special).size() >= 1);
    CHECK(model.detokenize(model.tokenize("\xff\xfe")).find("\xff\xfe") != std::string::npos);
    CHECK(model.tokenize("a", ll::tokenize_flags::goes_on).size() < model.tokenize("a").size());
    ll::detokenizer pieces(model, ll::detokenize_flags::goes_on | ll::detokenize_flags::control);
    std::string joined;
    for (const ll::token token : tokens) joined += pieces.push({&token, 1});
    CHECK(joined + pieces.finish() == model.detokenize(tokens, ll::detokenize_flags::goes_on));
    const ll::token lone = 3 + 0xC3;
    CHECK(pieces.push({&lone, 1}).empty() && pieces.finish() == "\xEF\xBF\xBD");
    throws(ll::status::invalid_argument, [&] { model.is_end(-5); });
    CHECK(model.is_end(model.info().eos_token));
    CHECK(!model.is_end(40));
}

void sessions_have_adapters()
{
    const ll::model model(data_path(TINY_MODEL), small_options());
    ll::session session(model, 64);
    const std::array<ll::token, 2> tokens{{1, 40}};
    const auto last = [&] {
        session.truncate(0);
        session.forward(tokens);
        const auto logits = session.logits(0);
        return std::vector<float>(logits.begin(), logits.end());
    };
    const std::vector<float> plain = last();
    {
        const ll::adapter adapter(model, LAYERLINE_ADAPTER);
        CHECK(adapter.memory_bytes() > 768);
        const layerline_adapter *const one[] = {adapter.get()};
        const float scales[] = {1.0f};
        session.set_adapters(one, scales);
        CHECK(!session.try_set_adapters(one, {}));
    }
    CHECK(last() != plain);
    session.set_adapters({}, {});
    CHECK(last() == plain);
    throws(ll::status::io, [&] { ll::adapter(model, "/no/such/adapter"); });
}

void conversations_become_text_and_tokens()
{
    char path[PATH_SIZE];
    make_chat_model(path, "{{ bos_token }}{% for m in messages %}{% if m.role == 'odd' %}{{ raise_exception('no ' + m.role) }}"
                          "{% endif %}{{ m.role }}:{{ m.content }}{{ eos_token }}{% endfor %}"
                          "{% if tools %}{{ tools | tojson }}{% endif %}{% if add_generation_prompt %}assistant:{% endif %}");
    const ll::model model(path, small_options());
    std::remove(path);
    const std::array<ll::message, 2> said{{{"system", "short"}, {"user", "hi</s>"}}};
    const std::string text = "<s>system:short</s>user:hi</s></s>";
    CHECK(model.format_chat(said) == text + "assistant:" && model.format_chat(said, false) == text);
    const std::string json = R"({"messages": [{"role": "user", "content": "x"}], "tools": [{"name": "f"}]})";
    CHECK(model.format_chat_json(json, false) == R"(<s>user:x</s>[{"name": "f"}])");
    ll::message_parser parser("hermes");
    parser.begin("<think>");
    parser.feed("Hm.</think>So:<tool_call>{\"name\": \"f\", \"arguments\": {}}</tool_call>");
    parser.finish();
    std::string parts;
    for (ll::message_part part; parser.next(part);) parts += std::to_string(static_cast<int>(part.kind)) + std::string(part.text);
    CHECK(parts == "1Hm.0So:2f3{}4" && std::string(parser.format()) == "hermes");
    CHECK(parser.message().find("reasoning_content") != std::string::npos);
    throws(ll::status::invalid_argument, [&] { parser.feed("x"); });
    throws(ll::status::not_found, [] { ll::message_parser("none such"); });
    CHECK(std::string(ll::message_parser(model).format()) == "plain");
    const std::vector<ll::token> tokens = model.tokenize_chat(said, false);
    const auto ends = [&](const std::vector<ll::token> &in) { return std::count(in.begin(), in.end(), model.info().eos_token); };
    CHECK(tokens.front() == model.info().bos_token && ends(tokens) == 2);
    CHECK(ends(model.tokenize(text, ll::tokenize_flags::special)) == 3);
    CHECK(ends(model.tokenize_chat_json(json)) == 1);
    const std::string long_content(5000, 'a');
    const std::array<ll::message, 1> long_one{{{"user", long_content.c_str()}}};
    CHECK(model.format_chat(long_one, false).size() == long_content.size() + 12);
    const std::array<ll::message, 1> odd{{{"odd", ""}}};
    throws(ll::status::invalid_argument, [&] { model.format_chat(odd); });
    throws(ll::status::invalid_argument, [&] { model.format_chat_json("{"); });
    throws(ll::status::not_found, [&] { ll::model(data_path(TINY_MODEL), small_options()).tokenize_chat(said); });
}

void events_are_polled_and_waited_for(ll::model &model)
{
    using namespace std::chrono_literals;
    std::array<ll::event, 8> room;
    const ll::ticket asked = model.prefetch(0, TINY_LAYERS);
    bool done = false;
    while (!done) {
        for (const ll::event &event : model.wait(room)) {
            CHECK(event.ticket == asked && event.status == ll::status::ok);
            done = done || event.kind == ll::event_kind::done;
        }
    }
    CHECK(model.state(0) == ll::layer_state::ready || model.state(0) == ll::layer_state::pinned);
    CHECK(model.poll(room).empty());
    CHECK(model.wait_for(1500us, room).empty() && model.wait_for(-1h, room).empty());
    CHECK(model.event_handle() >= 0);
    throws(ll::status::invalid_argument, [&] { model.prefetch(TINY_LAYERS, 1); });
    throws(ll::status::not_found, [&] { model.cancel(999999); });
    throws(ll::status::invalid_argument, [&] { model.poll({}); });

    // A limit no 32-bit count of milliseconds can hold is one all the same.
    ll::session session(model);
    const ll::ticket pass = session.submit(PROMPT);
    const ll::span<ll::event> events = model.wait_for(std::chrono::hours::max(), room);
    CHECK(events.size() == 1 && events[0].ticket == pass && events[0].status == ll::status::ok);
    model.cancel(pass);
    CHECK(session.logits().size() == TINY_VOCAB);
}

void sessions_share_a_batch(ll::model &model)
{
    ll::session first(model, 32), second(model, 32), alone(model, 32);
    alone.forward(PROMPT);
    std::vector<ll::batch_input> inputs;
    inputs.emplace_back(first, PROMPT, ll::logit_rows::all);
    inputs.emplace_back(second, PROMPT);
    ll::forward_batch(model, inputs);
    const std::vector<float> want(alone.logits().begin(), alone.logits().end());
    CHECK(same_logits(first.get(), 2, want.data(), want.size()) && same_logits(second.get(), 0, want.data(), want.size()));
    inputs.emplace_back(first, PROMPT);
    throws(ll::status::invalid_argument, [&] { ll::forward_batch(model, inputs); });
    CHECK(inputs[0].take_outcome() && inputs[1].take_outcome());
    const auto refused = inputs[2].take_outcome();
    CHECK(!refused && std::string_view(refused.error().message()).find("input 0") != std::string_view::npos);
    CHECK(first.position() == 2 * PROMPT.size());
}

void the_rest_of_the_chain_can_be_set(ll::model &model)
{
    const float logits[] = { 1, 3, 2, 0 }, biases[] = { -1e9f, 0.5f };
    const ll::token biased[] = { 1, 0 };
    const std::int32_t steps[] = { LAYERLINE_STEP_TOP_K };
    ll::sampler sampler;
    sampler.set_logit_biases(ll::span(biased, 2), ll::span(biases, 2)).set_dry(1, 1.75f, 2, 64).add_dry_breaker(model, "a");
    CHECK(sampler.sample(ll::span(logits, 4)) == 2);
    sampler.set_xtc(0.5f, 0.1f).set_mirostat(5, 0.1f).set_dynamic_temperature(0.1f, 1).set_typical_p(0.9f).set_top_n_sigma(1);
    sampler.set_frequency_penalty(0.1f).set_presence_penalty(0.1f).clear_dry_breakers().set_steps(ll::span(steps, 1));
    throws(ll::status::invalid_argument, [&] { sampler.set_logit_biases(ll::span(biased, 2), ll::span(biases, 1)); });
    throws(ll::status::invalid_argument, [&] { sampler.set_typical_p(2); });
}

void a_session_runs_passes(ll::model &model)
{
    ll::session session(model, 32);
    ll::sampler greedy;
    session.forward(PROMPT, ll::logit_rows::all);
    CHECK(session.position() == 3 && session.logits(2).size() == TINY_VOCAB);
    const std::vector<float> last(session.logits(2).begin(), session.logits(2).end());
    throws(ll::status::invalid_argument, [&] { session.logits(3); });
    session.truncate(2);
    session.forward(ll::span(PROMPT.data() + 2, 1));
    CHECK(same_logits(session.get(), 0, last.data(), last.size()));
    const ll::token chosen = greedy.sample(session);
    for (float logit : session.logits()) CHECK(logit <= session.logits()[static_cast<std::size_t>(chosen)]);
    session.truncate(0);
    session.forward(PROMPT, ll::logit_rows::last, ll::embedding_rows::all);
    CHECK(same_logits(session.get(), 0, last.data(), last.size()));
    CHECK(session.embeddings(2).size() == model.info().embedding_length);
    const std::vector<float> state(session.embeddings(2).begin(), session.embeddings(2).end());
    throws(ll::status::invalid_argument, [&] { session.embeddings(3); });
    session.truncate(0);
    session.forward(PROMPT, ll::logit_rows::none, ll::embedding_rows::last);
    CHECK(std::equal(state.begin(), state.end(), session.embeddings().begin(), session.embeddings().end()));
    throws(ll::status::invalid_argument, [&] { session.logits(); });
    session.truncate(0);
    session.forward(PROMPT);
    throws(ll::status::invalid_argument, [&] { session.embeddings(); });
    throws(ll::status::invalid_argument, [&] { session.forward({}); });
    throws(ll::status::context_full, [&] { session.forward(std::vector<ll::token>(64, 1)); });
    throws(ll::status::invalid_argument, [&] { greedy.set_temperature(-1); });
    throws(ll::status::memory_budget, [&] {
        model.set_memory_budget(0);
        ll::session(model, 4000000000u);
    });
}

void a_session_is_copied_saved_and_loaded(ll::model &model)
{
    ll::session session(model, 32);
    session.forward(PROMPT);
    const std::vector<float> last(session.logits().begin(), session.logits().end());
    ll::session copy = session.copy();
    const ll::session longer = session.copy(64);
    char path[PATH_SIZE];
    close(make_file(path, "", 0));
    session.save(path);
    session.truncate(1);
    ll::session loaded(model, 16);
    loaded.load(std::string_view(path));
    for (const ll::session *each : {&std::as_const(copy), &longer, &std::as_const(loaded)}) {
        CHECK(each->position() == PROMPT.size() && same_logits(each->get(), 0, last.data(), last.size()));
    }
    copy.forward(PROMPT), loaded.forward(PROMPT);
    CHECK(same_logits(copy.get(), 0, loaded.logits().data(), last.size()));
    throws(ll::status::context_full, [&] { copy.copy(2); });
    throws(ll::status::context_full, [&] { ll::session(model, 2).load(path); });
    throws(ll::status::format, [&] { loaded.load(data_path(TINY_MODEL)); });
    throws(ll::status::io, [&] { loaded.save("/no/such/folder/state"); });
    throws(ll::status::invalid_argument, [&] { loaded.save(std::string("a\0b", 3)); });
    throws(ll::status::invalid_argument, [&] { loaded.load(std::string("a\0b", 3)); });
    CHECK(loaded.position() == 2 * PROMPT.size());
    remove(path);
}

void a_session_goes_to_memory_and_back_to_a_checkpoint(ll::model &model)
{
    ll::session session(model, 32), other(model);
    session.forward(PROMPT);
    const std::vector<float> last(session.logits().begin(), session.logits().end());
    std::vector<std::uint8_t> state = session.save_state();
    other.load_state(state);
    CHECK(same_logits(other.get(), 0, last.data(), last.size()));
    state.pop_back();
    throws(ll::status::format, [&] { other.load_state(state); });
    throws(ll::status::context_full, [&] { ll::session(model, 2).load_state(session.save_state()); });

    const ll::checkpoint point = session.checkpoint();
    CHECK(point.position() == PROMPT.size() && point.memory_bytes() > 0);
    session.forward(PROMPT);
    session.restore(point);
    CHECK(session.position() == PROMPT.size());
    throws(ll::status::invalid_argument, [&] { other.restore(point); });
    throws(ll::status::invalid_argument, [&] { session.restore(ll::checkpoint::adopt(nullptr)); });
    CHECK(session.info().kv_type == LAYERLINE_KV_F16 && session.info().cache_bytes < session.info().memory_bytes);
    throws(ll::status::unsupported, [] {
        ll::options options = small_options();
        options.set_kv_type(ll::kv_type::q8_0);
        ll::model(data_path(TINY_MODEL), options);
    });
}

void generation_calls_what_can_be_called(ll::model &model)
{
    ll::sampler sampler;
    sampler.set_temperature(0.8f).set_top_k(40).set_top_p(0.9f).set_min_p(0.01f).set_repeat_penalty(1.1f, 16).set_seed(7);
    std::vector<ll::token> whole;
    ll::session(model).generate(sampler, PROMPT, 8, [&](ll::token token, std::string_view) { whole.push_back(token); });
    CHECK(whole.size() > 2);

    // The same seed again; a callable that can only be moved, stops, and may be const.
    std::vector<ll::token> part;
    sampler.set_repeat_penalty(1.1f, 16).set_seed(7);
    const auto two = [&part, own = std::make_unique<int>(2)](ll::token token, std::string_view) {
        part.push_back(token);
        return part.size() < static_cast<std::size_t>(*own);
    };
    ll::session(model).generate(sampler, PROMPT, 8, two);
    CHECK(part.size() == 2 && part[0] == whole[0] && part[1] == whole[1]);

    // What the callback throws comes out, and the session lives on.
    ll::session session(model);
    int calls = 0;
    try {
        session.generate(sampler, PROMPT, 8, [&](ll::token, std::string_view) { ++calls, throw std::out_of_range("mine"); });
        CHECK(!"it did not throw");
    } catch (const std::out_of_range &mine) {
        CHECK(std::string(mine.what()) == "mine" && calls == 1);
    }
    session.truncate(0);
    throws(ll::status::cancelled, [&] {
        session.generate(sampler, PROMPT, 8, [&](ll::token, std::string_view) { session.interrupt(); });
    });
}

void generations_draft_and_stop(ll::model &model)
{
    ll::sampler sampler;
    std::string plain, drafted;
    ll::generation generation;
    generation.set_max_tokens(12);
    ll::session(model).generate(generation, sampler, PROMPT, [&](ll::token, std::string_view piece) { plain += piece; });
    CHECK(generation.stats().end == LAYERLINE_END_LENGTH && generation.stats().tokens == 12);
    generation.draft_from_text(4);
    ll::session(model).generate(generation, sampler, PROMPT, [&](ll::token, std::string_view piece) { drafted += piece; });
    CHECK(drafted == plain);
    drafted.clear();
    generation.draft_with(model, 64, 4);
    ll::session(model).generate(generation, sampler, PROMPT, [&](ll::token, std::string_view piece) { drafted += piece; });
    CHECK(drafted == plain);
    throws(ll::status::invalid_argument, [&] { generation.draft_from_text(1000); });
    throws(ll::status::invalid_argument, [&] { generation.add_stop(""); });
    std::vector<float> logprobs;
    generation.draft_from_text(4).set_logprobs(2);
    ll::session(model).generate_detailed(generation, sampler, PROMPT, [&](const ll::generated_token &made) {
        logprobs.push_back(made.logprob);
        CHECK(made.top_count == 2 && made.top[0].logprob >= made.top[1].logprob && made.sampled_logprob >= 0);
        return logprobs.size() < 5;
    });
    CHECK(logprobs.size() == 5);
    throws(ll::status::invalid_argument, [&] { generation.set_logprobs(1000); });
    generation.set_logprobs({});
    generation.set_kept_first(2).set_max_tokens(60);
    ll::session small(model, 16);
    CHECK(small.common_prefix(PROMPT) == 0 && small.reuse_prefix(PROMPT) == 0);
    small.generate(generation, sampler, PROMPT, [](ll::token, std::string_view) {});
    CHECK(generation.stats().dropped > 0 && generation.stats().tokens > 11);
    generation.set_kept_first({});
    generation.add_stop("x").clear_stops();
}

void texts_follow_constraints(ll::model &model)
{
    if (ll::build_info().find("no constraints") != std::string_view::npos) {
        throws(ll::status::unsupported, [&] { ll::constraint(model, ll::constraint_kind::regex, "a"); });
        return;
    }
    ll::constraint constraint(model, ll::constraint_kind::regex, "ab[0-9]{2}c");
    ll::generation generation;
    ll::sampler sampler;
    std::string text;
    generation.set_constraint(&constraint);
    ll::session(model).generate(generation, sampler, PROMPT, [&](ll::token, std::string_view piece) { text += piece; });
    CHECK(text.size() == 5 && text.substr(0, 2) == "ab" && text[4] == 'c');
    CHECK(generation.stats().end == LAYERLINE_END_CONSTRAINT);
    generation.set_constraint(nullptr);
    ll::constraint copy = constraint.copy();
    std::vector<ll::token> forced = copy.forced();
    CHECK(!forced.empty() && copy.mask()[forced[0] / 32] == 1u << forced[0] % 32);
    copy.accept(forced);
    CHECK(copy.state() == ll::constraint_state::open && copy.forced().empty());
    throws(ll::status::invalid_argument, [&] { copy.accept(forced); });
    throws(ll::status::invalid_argument, [&] { ll::constraint(model, ll::constraint_kind::json_schema, "{"); });
}

void models_share_a_budget()
{
    ll::options options = small_options();
    const std::uint64_t each = ll::plan_memory(data_path(TINY_MODEL), options).full_bytes * 2;
    const ll::budget shared(2 * each);
    options.set_shared_budget(shared);
    ll::model first(data_path(TINY_MODEL), options);
    const ll::model second(data_path(TINY_MODEL), options);
    CHECK(first.stats().budget_bytes + second.stats().budget_bytes <= 2 * each);
    shared.set_bytes(3 * each);
    throws(ll::status::memory_budget, [&] { shared.set_bytes(4096); });
    throws(ll::status::invalid_argument, [&] { first.set_memory_budget(each); });
    options.clear_shared_budget();
    CHECK(ll::model(data_path(TINY_MODEL), options).stats().budget_bytes == std::uint64_t{1} << 30);
}

void models_and_adapters_come_from_sources()
{
    std::size_t size = 0;
    unsigned char *file = read_file(data_path(TINY_MODEL), &size);
    const auto bytes = std::make_shared<std::vector<unsigned char>>(file, file + size);
    std::free(file);
    const auto copy = [bytes](std::uint64_t offset, void *buf, std::size_t length) {
        std::copy_n(bytes->begin() + static_cast<std::ptrdiff_t>(offset), length, static_cast<unsigned char *>(buf));
        return static_cast<std::int64_t>(length);
    };
    ll::options options = small_options();
    options.set_prefetch(false);
    const auto logits = [](const ll::model &model) {
        ll::session session(model, 64);
        session.forward(PROMPT);
        const auto row = session.logits();
        return std::vector<float>(row.begin(), row.end());
    };
    {
        ll::source source(size, copy);
        source.set_name("tiny.gguf").set_concurrent(false);
        CHECK(ll::plan_memory(source, options).file_bytes == size);
        const ll::model model(source, options);
        CHECK(bytes.use_count() > 2 && model.stats().io == static_cast<std::int32_t>(ll::io_mode::source));
        CHECK(logits(model) == logits(ll::model(data_path(TINY_MODEL), options)));
        throws(ll::status::invalid_argument, [&] { source.add_file(source); });
        throws(ll::status::invalid_argument, [&] { ll::adapter(model, source); });
    }
    // The last share is the callable's.
    CHECK(bytes.use_count() == 2);

    ll::source failing(size, [](std::uint64_t, void *, std::size_t) -> std::int64_t { throw std::runtime_error("no"); });
    failing.set_name("failing.gguf");
    try {
        ll::model(failing, options);
        CHECK(!"it did not throw");
    } catch (const ll::error &error) {
        CHECK(error.status() == ll::status::io && std::string(error.what()).find("failing.gguf") == 0);
    }
}

} // namespace

int main()
{
    CHECK(ll::version_number() == LAYERLINE_VERSION_NUMBER && !ll::version().empty() && !ll::build_info().empty());
    failures_carry_status_and_message();
    an_empty_handle_is_refused();
    ll::model model(data_path(TINY_MODEL), small_options());
    handles_move_and_are_given_away(model);
    a_model_says_what_it_is(model);
    text_of_any_length(model);
    sessions_have_adapters();
    conversations_become_text_and_tokens();
    events_are_polled_and_waited_for(model);
    sessions_share_a_batch(model);
    the_rest_of_the_chain_can_be_set(model);
    a_session_runs_passes(model);
    a_session_is_copied_saved_and_loaded(model);
    a_session_goes_to_memory_and_back_to_a_checkpoint(model);
    generation_calls_what_can_be_called(model);
    generations_draft_and_stop(model);
    texts_follow_constraints(model);
    models_share_a_budget();
    models_and_adapters_come_from_sources();
    return check_result();
}
