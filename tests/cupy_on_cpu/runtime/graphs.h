// Graphs: what captures have recorded.
#pragma once
#include "captures.h"

struct Graph {
    int device;  // of the stream that captured it
    std::shared_ptr<const Nodes> nodes;
};

intptr_t new_graph(Graph graph);
const Graph* graph_at(intptr_t handle);  // nullptr where there is none, or no longer
