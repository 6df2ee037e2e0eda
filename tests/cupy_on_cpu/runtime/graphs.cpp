// Graphs, and their launches.
#include "graphs.h"
#include "devices.h"
#include "errors.h"

namespace {

std::map<intptr_t, Graph> graphs, executables;

struct Launched {
    std::shared_ptr<const Nodes> nodes;
    long launches;
};
std::map<intptr_t, Launched> launched;  // by executable, which may have been destroyed since; handles are not reused

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

PyObject* names(const Nodes& nodes) {
    PyObject* made = PyList_New(nodes.size());
    for (size_t i = 0; i < nodes.size(); i++)
        PyList_SET_ITEM(made, i, PyUnicode_FromString(nodes[i].name.c_str()));
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
    launched.emplace(executable, Launched{nodes, 0}).first->second.launches++;
    for (const Node& node : *nodes) {
        if (!replay(node)) return nullptr;
        emulated_counters.nodes++;
    }
    return none();
}

PyObject* emulated_nodes(intptr_t handle) {
    const Graph* graph = find(executables, handle);
    if (!graph) graph = find(graphs, handle);
    return graph ? names(*graph->nodes) : no_graph();
}

// A list of [names of the nodes, number of launches].
PyObject* emulated_launched_graphs() {
    PyObject* made = PyList_New(0);
    for (auto& [executable, each] : launched) {
        PyObject* item = Py_BuildValue("(Nl)", names(*each.nodes), each.launches);
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
