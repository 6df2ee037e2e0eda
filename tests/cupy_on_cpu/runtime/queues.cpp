// All that was put on streams and has not run yet is one list, in the order of the calls; each piece knows what it
// must wait for. Who waits for something runs that, and what it waits for in turn, and nothing else.
#include "queues.h"
#include "devices.h"
#include "errors.h"

#include <algorithm>
#include <list>

int emulated_asynchronous = 0;

namespace {

std::list<Node>& queue = *new std::list<Node>;  // for as long as the process: see graphs.cpp
std::map<intptr_t, Clock> clocks;               // what has been put on a stream, and what that waits for
std::map<intptr_t, size_t> enqueued, done;
std::map<int, std::map<intptr_t, bool>> blocking_streams;  // of each device

void merge(Clock& into, const Clock& other) {
    for (auto& [stream, count] : other) into[stream] = std::max(into[stream], count);
}

// Each device has default streams of its own.
intptr_t key(intptr_t stream) { return stream > 2 ? stream : (stream == 2 ? -1000 : -1) - current_device; }
bool is_legacy(intptr_t stream) { return stream == 0 || stream == 1; }

}  // namespace

Clock reached(intptr_t stream, bool blocking) {
    Clock& clock = clocks[key(stream)];
    if (is_legacy(stream))
        for (auto& [other, _] : blocking_streams[current_device]) merge(clock, clocks[other]);
    else if (blocking)
        merge(clock, clocks[key(0)]);
    return clock;
}

void enqueue(intptr_t stream, bool blocking, Node node) {
    node.stream = key(stream);
    node.before = reached(stream, blocking);
    if (blocking && !is_legacy(stream)) blocking_streams[current_device][node.stream] = true;
    clocks[node.stream][node.stream] = ++enqueued[node.stream];
    queue.push_back(std::move(node));
}

void wait_in_stream(intptr_t stream, const Clock& event) { merge(clocks[key(stream)], event); }

bool is_done(const Clock& wanted) {
    return std::all_of(wanted.begin(), wanted.end(), [](auto& each) { return done[each.first] >= each.second; });
}

bool run_until(const Clock& wanted) {
    if (is_done(wanted)) return true;
    Clock needed = wanted;
    std::map<intptr_t, size_t> number = enqueued;  // of the node that is looked at, in its stream
    std::list<Node> now;
    for (auto node = queue.end(); node != queue.begin();) {
        --node;
        if (number[node->stream]-- > needed[node->stream]) continue;
        merge(needed, node->before);
        auto next = std::next(node);
        now.splice(now.begin(), queue, node);
        node = next;
    }
    PyGILState_STATE state = PyGILState_Ensure();
    bool well = true;
    for (Node& node : now) {
        well = well && replay(node);
        done[node.stream]++;
    }
    PyGILState_Release(state);
    return well;
}

bool run_all() { return run_until(Clock(enqueued.begin(), enqueued.end())); }

extern "C" PyObject* emulated_finish() {
    if (!run_all()) return nullptr;
    Py_RETURN_NONE;
}
