// Core counts of the simulated device.
#pragma once
#include "../../acl/acl.h"

namespace platform_ascendc {

class PlatformAscendCManager {
public:
    static PlatformAscendCManager *GetInstance()
    {
        static PlatformAscendCManager one;
        return &one;
    }
    uint32_t GetCoreNumAic() const { return Cores(ACL_DEV_ATTR_CUBE_CORE_NUM); }
    uint32_t GetCoreNumAiv() const { return Cores(ACL_DEV_ATTR_VECTOR_CORE_NUM); }
    uint32_t GetCoreNum() const { return GetCoreNumAic(); }

private:
    static uint32_t Cores(aclrtDevAttr attribute)
    {
        int64_t n = 0;
        aclrtGetDeviceInfo(0, attribute, &n);
        return static_cast<uint32_t>(n);
    }
};

}   // namespace platform_ascendc
