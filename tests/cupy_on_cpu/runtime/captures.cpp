// Streams and events, and what CUDA makes of them while they capture.
//
// Outside a capture all work is done when the call returns, unless devices are asynchronous (queues.cpp). A capture that began on
// one stream spreads to those that wait for an event of it, and all of them record into one list. That list is in the
// order of the calls, which is an order in which CUDA may run the graph.
#include "captures.h"
#include "devices.h"
#include "errors.h"
#include "graphs.h"
#include "queues.h"

#include <chrono>
#include <thread>

namespace {

enum Mode { global, thread_local_, relaxed };

struct Capture {
    intptr_t origin;
    int mode;
    std::thread::id thread;
    bool valid = true;
    Nodes nodes;
    Clock recorded;
};
struct Stream {
    int device;
    bool blocking;  // it and the legacy default stream wait for each other
    std::shared_ptr<Capture> capture;
    Clock before;  // what of its capture comes before its next node
};
struct Event {
    int device;
    std::chrono::steady_clock::time_point recorded;
    bool captured;  // where it was recorded last
    std::weak_ptr<Capture> capture;
    Clock before;  // what of its capture it stands for; outside of one, what of the streams
};
std::map<intptr_t, Stream>& streams = *new std::map<intptr_t, Stream>;  // for as long as the process: see graphs.cpp
std::map<intptr_t, Event> events;

PyObject* none() { Py_RETURN_NONE; }

bool is_legacy(intptr_t stream) { return stream == 0 || stream == 1; }
constexpr intptr_t per_thread = 2;

template <class T>
T* find(std::map<intptr_t, T>& among, intptr_t handle) {
    auto found = among.find(handle);
    return found == among.end() ? nullptr : &found->second;
}

intptr_t new_handle() {
    static intptr_t last = 1000;  // 0, 1 and 2 are the default streams
    return ++last;
}
intptr_t new_stream(bool blocking) {
    intptr_t handle = new_handle();
    streams[handle] = {current_device, blocking, nullptr, {}};
    return handle;
}
intptr_t new_event() {
    intptr_t handle = new_handle();
    events[handle] = {current_device, {}, false, {}, {}};
    return handle;
}

bool is_blocking(intptr_t handle) {
    Stream* stream = find(streams, handle);
    return !stream || stream->blocking;  // the default streams are
}

int refuse(Capture& capture, Status status) {
    emulated_counters.refused += capture.valid;
    capture.valid = false;
    return status;
}

// Every capture of which this is true refuses what is being done.
template <class Disturbed>
int refuse_all(Status status, Disturbed disturbed) {
    int result = 0;
    for (auto& [handle, stream] : streams)
        if (stream.capture && disturbed(stream)) result = refuse(*stream.capture, status);
    return result;
}

const char* reason(int status) {
    switch (status) {
        case invalid_handle: return "no such stream or event";
        case illegal_state: return "the stream captures already, or does not capture";
        case capture_unsupported: return "not while a stream captures";
        case capture_invalidated: return "something was refused in this capture";
        case capture_merge: return "the event is of another capture";
        case capture_unmatched: return "the capture began on another stream";
        case capture_unjoined: return "a stream of the capture was not joined: the first one must wait for its event";
        case capture_isolation: return "a captured stream waits for an event that was recorded outside of the capture";
        case capture_implicit: return "the legacy default stream would wait for a blocking stream that captures";
        case captured_event: return "the event was recorded in a capture: it has no time";
        case capture_wrong_thread: return "the capture began in another thread";
        default: return "refused";
    }
}

void leave(const std::shared_ptr<Capture>& capture) {
    for (auto& [handle, stream] : streams)
        if (stream.capture == capture) stream.capture = nullptr, stream.before.clear();
}

bool joined(const Capture& capture, Clock& origin) {
    for (auto& [stream, recorded] : capture.recorded)
        if (origin[stream] < recorded) return false;
    return true;
}

void merge(Clock& into, const Clock& other) {
    for (auto& [stream, count] : other) into[stream] = std::max(into[stream], count);
}

// What an event that was recorded in a capture answers to a question about its time.
int event_passed(intptr_t handle) {
    Event* event = find(events, handle);
    if (!event) return invalid_handle;
    if (!event->captured) return 0;
    if (auto capture = event->capture.lock()) refuse(*capture, captured_event);
    return captured_event;
}

// Is that done? Not yet, says the first one who asks; then it is.
PyObject* answer(const Clock& wanted) {
    int status = is_done(wanted) ? 0 : not_ready;
    return run_until(wanted) ? PyLong_FromLong(status) : nullptr;
}

int wait_for_event(intptr_t handle, intptr_t event_handle) {
    Event* event = find(events, event_handle);
    if (!event) return invalid_handle;
    if (int status = permitted(handle)) return status;
    std::shared_ptr<Capture> theirs = event->capture.lock();
    if (event->captured && !theirs) return captured_event;
    Stream* stream = find(streams, handle);
    if (!stream && theirs) return refuse(*theirs, capture_implicit);
    if (stream && stream->capture && !theirs) return refuse(*stream->capture, capture_isolation);
    if (!theirs) return wait_in_stream(handle, event->before), 0;
    if (!theirs->valid) return capture_invalidated;
    if (stream->capture && stream->capture != theirs)
        return refuse(*theirs, capture_merge), refuse(*stream->capture, capture_merge);
    stream->capture = theirs;
    merge(stream->before, event->before);
    return 0;
}

int begin_capture(intptr_t handle, int mode) {
    if (mode < global || mode > relaxed) return invalid_value;
    Stream* stream = find(streams, handle);
    if (!stream) return is_legacy(handle) || handle == per_thread ? capture_unsupported : invalid_handle;
    if (stream->capture) return illegal_state;
    stream->capture = std::make_shared<Capture>();
    stream->capture->origin = handle;
    stream->capture->mode = mode;
    stream->capture->thread = std::this_thread::get_id();
    return 0;
}

int end_capture(intptr_t handle, Graph& made) {
    Stream* stream = find(streams, handle);
    if (!stream) return invalid_handle;
    std::shared_ptr<Capture> capture = stream->capture;
    if (!capture) return illegal_state;
    if (capture->origin != handle) return refuse(*capture, capture_unmatched);
    if (capture->mode != relaxed && capture->thread != std::this_thread::get_id())
        return refuse(*capture, capture_wrong_thread);
    bool whole = joined(*capture, stream->before);
    leave(capture);
    if (!capture->valid) return capture_invalidated;
    if (!whole) return refuse(*capture, capture_unjoined);
    made = {stream->device, std::make_shared<const Nodes>(std::move(capture->nodes))};
    return 0;
}

}  // namespace

int permitted(intptr_t handle) {
    if (is_legacy(handle))
        return refuse_all(capture_implicit, [](Stream& each) { return each.blocking && each.device == current_device; });
    if (handle == per_thread) return 0;
    Stream* stream = find(streams, handle);
    if (!stream) return invalid_handle;
    return stream->capture && !stream->capture->valid ? capture_invalidated : 0;
}

bool captures(intptr_t handle) {
    Stream* stream = find(streams, handle);
    return stream && stream->capture;
}

bool finish(intptr_t stream) { return run_until(reached(stream, is_blocking(stream))); }

bool held_back(intptr_t stream) { return emulated_asynchronous || captures(stream); }

void record(intptr_t handle, Node node) {
    node.device = current_device;
    for (const void* address : node.memory) {
        const Allocation* found = allocation_at(address);
        node.serials.push_back(found ? found->serial : 0);
    }
    if (!captures(handle)) return enqueue(handle, is_blocking(handle), std::move(node));
    Stream& stream = streams.at(handle);
    node.stream = handle;
    node.before = stream.before;
    stream.capture->nodes.push_back(std::move(node));
    stream.before[handle] = ++stream.capture->recorded[handle];
}

int permitted_beside_captures() {
    return refuse_all(capture_unsupported, [](Stream& each) {
        const Capture& capture = *each.capture;
        return capture.mode == global || (capture.mode != relaxed && capture.thread == std::this_thread::get_id());
    });
}

int may_wait_for_device() {
    return refuse_all(capture_unsupported, [](Stream& each) { return each.device == current_device; });
}

int may_wait(intptr_t handle) {
    if (int status = permitted(handle)) return status;
    Stream* stream = find(streams, handle);
    return stream && stream->capture ? refuse(*stream->capture, capture_unsupported) : 0;
}

PyObject* capture_error(int status) { return cuda_error(static_cast<Status>(status), "%s", reason(status)); }

bool usable(intptr_t handle) {
    if (Stream* stream = find(streams, handle))
        if (stream->device != current_device) {
            cuda_error(invalid_handle, "a stream of device %d, used on device %d", stream->device, current_device);
            return false;
        }
    int status = permitted(handle);
    if (status) capture_error(status);
    return !status;
}

extern "C" {

// ---- Streams

intptr_t runtime_streamCreate(int) { return new_stream(true); }
intptr_t runtime_streamCreateWithFlags(unsigned flags, int) { return new_stream(!(flags & 1)); }
intptr_t runtime_streamCreateWithPriority(unsigned flags, int, int) { return new_stream(!(flags & 1)); }

PyObject* runtime_streamDestroy(intptr_t handle, int) {
    Stream* stream = find(streams, handle);
    if (stream && stream->capture) {
        std::shared_ptr<Capture> capture = stream->capture;
        refuse(*capture, capture_invalidated);
        if (capture->origin == handle) leave(capture);
    }
    streams.erase(handle);
    return none();
}

PyObject* runtime_streamSynchronize(intptr_t stream, int) {
    if (int status = may_wait(stream)) return capture_error(status);
    emulated_counters.syncs++;
    return finish(stream) ? none() : nullptr;
}
PyObject* runtime_streamQuery(intptr_t stream, int) {
    if (int status = may_wait(stream)) return PyLong_FromLong(status);
    return answer(reached(stream, is_blocking(stream)));
}

PyObject* runtime_streamWaitEvent(intptr_t stream, intptr_t event, int, void*) {
    int status = wait_for_event(stream, event);
    return status ? capture_error(status) : none();
}

// ---- Events

intptr_t runtime_eventCreate(int) { return new_event(); }
intptr_t runtime_eventCreateWithFlags(unsigned, int) { return new_event(); }
PyObject* runtime_eventDestroy(intptr_t event, int) { return events.erase(event), none(); }

PyObject* runtime_eventSynchronize(intptr_t event, int) {
    if (int status = event_passed(event)) return capture_error(status);
    emulated_counters.syncs++;
    return run_until(events[event].before) ? none() : nullptr;
}
PyObject* runtime_eventQuery(intptr_t event, int) {
    if (int status = event_passed(event)) return PyLong_FromLong(status);
    return answer(events[event].before);
}

PyObject* runtime_eventRecord(intptr_t handle, intptr_t stream_handle, int) {
    Event* event = find(events, handle);
    if (!event) return capture_error(invalid_handle);
    if (event->device != current_device)
        return cuda_error(invalid_handle, "an event of device %d, used on device %d", event->device, current_device);
    if (!usable(stream_handle)) return nullptr;
    Stream* stream = find(streams, stream_handle);
    bool captured = stream && stream->capture;
    *event = {event->device, std::chrono::steady_clock::now(), captured, {}, {}};
    if (captured) event->capture = stream->capture;
    event->before = captured ? stream->before : reached(stream_handle, is_blocking(stream_handle));
    return none();
}

float runtime_eventElapsedTime(intptr_t start, intptr_t end, int) {  // of the emulation, in milliseconds
    for (intptr_t event : {start, end})
        if (int status = event_passed(event)) return capture_error(status), 0.0f;
    return std::chrono::duration<float, std::milli>(events[end].recorded - events[start].recorded).count();
}

// ---- Captures

struct OptionalInteger {  // how Cython passes an optional argument: how many are given, and their values
    int given, value;
};

PyObject* runtime_streamBeginCapture(intptr_t stream, int, const OptionalInteger* mode) {
    int status = begin_capture(stream, mode && mode->given ? mode->value : relaxed);
    return status ? capture_error(status) : none();
}

intptr_t runtime_streamEndCapture(intptr_t stream, int) {
    Graph made;
    if (int status = end_capture(stream, made)) return capture_error(status), 0;
    return new_graph(made);
}

int runtime_streamIsCapturing(intptr_t handle, int) {
    Stream* stream = find(streams, handle);
    if (!stream || !stream->capture) return 0;
    if (!stream->capture->valid)  // as CuPy says it
        PyErr_SetString(PyExc_RuntimeError, "the stream was capturing, but an error has invalidated the capture sequence");
    return stream->capture->valid;
}

long emulated_streams() { return streams.size(); }
long emulated_events() { return events.size(); }

}  // extern "C"
