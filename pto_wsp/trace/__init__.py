"""Python functions -> graphs: kernels become KernelGraphs, workloads become WorkloadTrees."""
