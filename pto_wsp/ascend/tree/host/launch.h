// Starts the two device programs. Their launches are in launch.asc, the only
// file that needs the compiler for kernels.
#pragma once

#include <cstdint>

#include "acl/acl.h"

// plan: device address of a plan::Plan
void LaunchExpand(uint64_t plan, aclrtStream stream);
void LaunchWorker(uint64_t plan, uint32_t blocks, aclrtStream stream);
