// A stand-in for libcuda.so.1, of which it has two functions only: those that say what a graph is made of.
//
// CuPy has no call for it. A handle of a node is a pointer into its graph.
#include "graphs.h"

enum Result { success = 0, invalid_value = 1 };

extern "C" {

int cuGraphGetNodes(intptr_t handle, const Node** nodes, size_t* count) {
    const Graph* graph = graph_at(handle);
    if (!graph || !count) return invalid_value;
    size_t present = graph->nodes->size(), wanted = nodes ? *count : 0;
    for (size_t i = 0; i < wanted; i++) nodes[i] = i < present ? &(*graph->nodes)[i] : nullptr;
    *count = nodes && wanted < present ? wanted : present;
    return success;
}

int cuGraphNodeGetType(const Node* node, int* type) {
    if (!node) return invalid_value;
    *type = static_cast<int>(node->type);
    return success;
}

}  // extern "C"
