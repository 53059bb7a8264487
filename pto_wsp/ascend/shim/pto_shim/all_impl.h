// The machine behind the kernel-facing headers, whole.
#pragma once
#include "acl_impl.h"
#include "copy_impl.h"
#include "cube_impl.h"
#include "launch_impl.h"
#include "machine_impl.h"
#include "math_impl.h"
#include "move_impl.h"
#include "reduce_impl.h"
#include "vector_impl.h"
