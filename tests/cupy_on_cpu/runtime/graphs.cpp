// Graphs, and their launches.
#include "graphs.h"
#include "devices.h"
#include "errors.h"

#include <algorithm>

namespace {

// Those that are never destroyed outlive Python, whose objects host functions are: so they do not end at exit.
std::map<intptr_t, Graph>&graphs = *new std::map<intptr_t, Graph>, &executables = *new std::map<intptr_t, Graph>;

typedef std::vector<std::string> Names;
std::map<intptr_t, std::pair<Names, long>> launched;  // nodes and launches of executables, that may be gone by now

Names names(const Nodes& nodes) {
    Names found;
    for (const Node& node : nodes) found.push_back(node.name);
    return found;
}

intptr_t add(std::map<intptr_t, Graph>& among, Graph graph) {
    static intptr_t last = 1 << 20;
    among[++last] = graph;
    return last;
}
const Graph* find(const std::map<intptr_t, Graph>& among, intptr_t handle) {
    auto found = among.find(handle);
    return found == among.end() ? nullptr : &found->second;
}

PyObject* none() { Py_RETURN_NONE; }
PyObject* no_graph() { return cuda_error(invalid_value, "no such graph: it was destroyed, or never made"); }

PyObject* as_list(const Names& names) {
    PyObject* made = PyList_New(names.size());
    for (size_t i = 0; i < names.size(); i++) PyList_SET_ITEM(made, i, PyUnicode_FromString(names[i].c_str()));
    return made;
}

enum Order { as_recorded, forks_first, forks_last };

// The nodes in another order that the graph allows: the streams that joined its capture as early, or as late, as can
// be. Where the results differ the graph lacks a dependency.
std::vector<const Node*> ordered(const Nodes& nodes, int order) {
    std::vector<const Node*> made;
    if (order == as_recorded) {
        for (const Node& node : nodes) made.push_back(&node);
        return made;
    }
    std::map<intptr_t, std::vector<const Node*>> by_stream;
    std::vector<intptr_t> streams;
    for (const Node& node : nodes) {
        if (!by_stream.count(node.stream)) streams.push_back(node.stream);
        by_stream[node.stream].push_back(&node);
    }
    if (order == forks_first) std::reverse(streams.begin(), streams.end());
    Clock done;
    auto is_ready = [&](intptr_t stream) {
        if (done[stream] == by_stream[stream].size()) return false;
        for (auto& [other, count] : by_stream[stream][done[stream]]->before)
            if (done[other] < count) return false;
        return true;
    };
    while (made.size() < nodes.size()) {
        intptr_t next = *std::find_if(streams.begin(), streams.end(), is_ready);
        made.push_back(by_stream[next][done[next]++]);
    }
    return made;
}

const Graph* ready(intptr_t executable, intptr_t stream) {  // nullptr with an error set
    const Graph* graph = find(executables, executable);
    if (!graph) return no_graph(), nullptr;
    if (!usable(stream)) return nullptr;
    if (graph->device != current_device) {
        cuda_error(invalid_value, "a graph of device %d, launched on device %d", graph->device, current_device);
        return nullptr;
    }
    return graph;
}

}  // namespace

intptr_t new_graph(Graph graph) { return add(graphs, graph); }
const Graph* graph_at(intptr_t handle) { return find(graphs, handle); }

bool replay(const Node& node) {
    for (size_t i = 0; i < node.memory.size(); i++) {
        const Allocation* found = allocation_at(node.memory[i]);
        if ((found ? found->serial : 0) == node.serials[i]) continue;
        cuda_error(illegal_address, "%s, in a graph, works on memory that was freed since", node.name.c_str());
        return false;
    }
    int before = current_device;
    current_device = node.device;
    bool done = node.run();
    current_device = before;
    if (!done && !PyErr_Occurred()) cuda_error(launch_failure, "%s, in a graph, failed", node.name.c_str());
    return done;
}

extern "C" {

intptr_t runtime_graphInstantiate(intptr_t handle, int) {
    const Graph* graph = find(graphs, handle);
    return graph ? add(executables, *graph) : (no_graph(), 0);
}
PyObject* runtime_graphDestroy(intptr_t graph, int) { return graphs.erase(graph) ? none() : no_graph(); }
PyObject* runtime_graphExecDestroy(intptr_t graph, int) { return executables.erase(graph) ? none() : no_graph(); }
PyObject* runtime_graphUpload(intptr_t graph, intptr_t stream, int) { return ready(graph, stream) ? none() : nullptr; }

PyObject* runtime_graphLaunch(intptr_t executable, intptr_t stream, int) {
    const Graph* graph = ready(executable, stream);
    if (!graph) return nullptr;
    if (captures(stream)) return capture_error(may_wait(stream));  // CUDA would make a node of the whole graph
    std::shared_ptr<const Nodes> nodes = graph->nodes;             // a host function may destroy the graph
    emulated_counters.graph_launches++;
    if (!launched.count(executable)) launched[executable] = {names(*nodes), 0};
    launched[executable].second++;
    int order = emulated_replay_order;
    auto run = [nodes, order] {
        for (const Node* node : ordered(*nodes, order)) {
            if (!replay(*node)) return false;
            emulated_counters.nodes++;
        }
        return true;
    };
    if (held_back(stream))
        record(stream, {NodeType::kernel, "graph", {}, run});
    else if (!run())
        return nullptr;
    return none();
}

PyObject* emulated_nodes(intptr_t handle) {
    const Graph* graph = find(executables, handle);
    if (!graph) graph = find(graphs, handle);
    return graph ? as_list(names(*graph->nodes)) : no_graph();
}

// A list of [names of the nodes, number of launches].
PyObject* emulated_launched_graphs() {
    PyObject* made = PyList_New(0);
    for (auto& [executable, each] : launched) {
        PyObject* item = Py_BuildValue("(Nl)", as_list(each.first), each.second);
        PyList_Append(made, item);
        Py_DECREF(item);
    }
    return made;
}
PyObject* emulated_forget_graphs() {
    launched.clear();
    Py_RETURN_NONE;
}

long emulated_graphs() { return graphs.size(); }
long emulated_executables() { return executables.size(); }

}  // extern "C"
