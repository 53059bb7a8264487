// TPipe, TQue, TQueBind, TBuf: where tiles live and how their pipes hand them over.
#pragma once
#include "sync.h"
#include "tensor.h"

namespace pto_shim {

int PipeOpen(const Call &call);                // a number for the TPipe
void PipeClose(int pipe);
void PipeReset(const Call &call, int pipe);
struct QueueState {
    int pipe = -1, id = -1;                    // number of the queue on its core
    TPosition src = TPosition::MAX, dst = TPosition::MAX;
    int depth = 1;
};
void InitQueue(const Call &call, int pipe, QueueState &q, int64_t num, int64_t bytes);
View InitBuf(const Call &call, int pipe, TPosition pos, int64_t bytes);
View QueueAlloc(const Call &call, const QueueState &q, DT type);
void QueueEnQue(const Call &call, const QueueState &q, const View &v);
View QueueDeQue(const Call &call, const QueueState &q, DT type);
void QueueFree(const Call &call, const QueueState &q, const View &v);
int QueueHas(const QueueState &q, bool ready); // buffers that wait in the queue / that are free
View BufGet(const Call &call, const View &whole, uint64_t bytes, uint64_t offset, DT type);
int EventTake(const Call &call, int pipe, int event, bool keep);
void EventGive(const Call &call, int pipe, int event, int64_t id);

}   // namespace pto_shim

namespace AscendC {

template <TPosition src, TPosition dst, int32_t depth, auto mask = 0> class TQueBind {
public:
    TQueBind()
    {
        q.src = src;
        q.dst = dst;
        q.depth = depth;
    }
    template <typename T> LocalTensor<T> AllocTensor(pto_shim::Loc at = pto_shim::Loc::Here())
    {
        return LocalTensor<T>(pto_shim::QueueAlloc({"AllocTensor", at}, q, pto_shim::TypeOf<T>()));
    }
    template <typename T> void AllocTensor(LocalTensor<T> &t, pto_shim::Loc at = pto_shim::Loc::Here())
    {
        static_assert(depth == 0, "AllocTensor by reference belongs to queues of depth 0");
        t = LocalTensor<T>(pto_shim::QueueAlloc({"AllocTensor", at}, q, pto_shim::TypeOf<T>()));
    }
    template <typename T> bool EnQue(const LocalTensor<T> &t, pto_shim::Loc at = pto_shim::Loc::Here())
    {
        pto_shim::QueueEnQue({"EnQue", at}, q, t.v);
        return true;
    }
    template <typename T> LocalTensor<T> DeQue(pto_shim::Loc at = pto_shim::Loc::Here())
    {
        return LocalTensor<T>(pto_shim::QueueDeQue({"DeQue", at}, q, pto_shim::TypeOf<T>()));
    }
    template <typename T> void DeQue(LocalTensor<T> &t, pto_shim::Loc at = pto_shim::Loc::Here())
    {
        t = LocalTensor<T>(pto_shim::QueueDeQue({"DeQue", at}, q, pto_shim::TypeOf<T>()));
    }
    template <typename T> void FreeTensor(const LocalTensor<T> &t, pto_shim::Loc at = pto_shim::Loc::Here())
    {
        pto_shim::QueueFree({"FreeTensor", at}, q, t.v);
    }
    bool VacantInQue() { return pto_shim::QueueHas(q, false) > 0; }
    bool HasTensorInQue() { return pto_shim::QueueHas(q, true) > 0; }
    int32_t GetTensorCountInQue() { return pto_shim::QueueHas(q, true); }
    bool HasIdleBuffer() { return pto_shim::QueueHas(q, false) > 0; }

    pto_shim::QueueState q;
};

constexpr TPosition SourceOf(TPosition pos)
{
    return pos == TPosition::VECIN || pos == TPosition::A1 || pos == TPosition::B1 || pos == TPosition::C1 ? TPosition::GM
           : pos == TPosition::A2                                                                        ? TPosition::A1
           : pos == TPosition::B2                                                                        ? TPosition::B1
           : pos == TPosition::C2 || pos == TPosition::C2PIPE2GM                                         ? TPosition::C1
                                                                                                         : pos;
}
constexpr TPosition TargetOf(TPosition pos)
{
    return pos == TPosition::VECOUT || pos == TPosition::CO1 || pos == TPosition::CO2 ? TPosition::GM : pos;
}
template <TPosition pos, int32_t depth, auto mask = 0> class TQue : public TQueBind<SourceOf(pos), TargetOf(pos), depth, mask> {};

template <TPosition pos = TPosition::LCM> class TBuf {
public:
    template <typename T> LocalTensor<T> Get(pto_shim::Loc at = pto_shim::Loc::Here())
    {
        return LocalTensor<T>(pto_shim::BufGet({"TBuf::Get", at}, whole, whole.end - whole.addr, 0, pto_shim::TypeOf<T>()));
    }
    template <typename T> LocalTensor<T> Get(uint32_t len, pto_shim::Loc at = pto_shim::Loc::Here())
    {
        return LocalTensor<T>(
            pto_shim::BufGet({"TBuf::Get", at}, whole, uint64_t{len} * sizeof(T), 0, pto_shim::TypeOf<T>()));
    }
    template <typename T>
    LocalTensor<T> GetWithOffset(uint32_t size, uint32_t bufOffset, pto_shim::Loc at = pto_shim::Loc::Here())
    {
        return LocalTensor<T>(pto_shim::BufGet({"TBuf::GetWithOffset", at}, whole, uint64_t{size} * sizeof(T), bufOffset,
                                               pto_shim::TypeOf<T>()));
    }

    pto_shim::View whole;
};

class TPipe {
public:
    explicit TPipe(pto_shim::Loc at = pto_shim::Loc::Here()) : id(pto_shim::PipeOpen({"TPipe", at})) {}
    ~TPipe() { pto_shim::PipeClose(id); }
    TPipe(const TPipe &) = delete;
    TPipe &operator=(const TPipe &) = delete;
    template <TPosition src, TPosition dst, int32_t depth, auto mask>
    bool InitBuffer(TQueBind<src, dst, depth, mask> &que, pto_shim::Field<uint8_t> num, uint32_t len,
                    pto_shim::Loc at = pto_shim::Loc::Here())
    {
        pto_shim::InitQueue({"InitBuffer", at}, id, que.q, pto_shim::Wide<uint8_t>(num), len);
        return true;
    }
    template <TPosition pos> bool InitBuffer(TBuf<pos> &buf, uint32_t len, pto_shim::Loc at = pto_shim::Loc::Here())
    {
        buf.whole = pto_shim::InitBuf({"InitBuffer", at}, id, pos, len);
        return true;
    }
    template <HardEvent evt> TEventID AllocEventID(pto_shim::Loc at = pto_shim::Loc::Here())
    {
        return static_cast<TEventID>(pto_shim::EventTake({"AllocEventID", at}, id, static_cast<int>(evt), true));
    }
    template <HardEvent evt> void ReleaseEventID(TEventID e, pto_shim::Loc at = pto_shim::Loc::Here())
    {
        pto_shim::EventGive({"ReleaseEventID", at}, id, static_cast<int>(evt), e);
    }
    TEventID FetchEventID(HardEvent evt, pto_shim::Loc at = pto_shim::Loc::Here())
    {
        return static_cast<TEventID>(pto_shim::EventTake({"FetchEventID", at}, id, static_cast<int>(evt), false));
    }
    template <HardEvent evt> TEventID FetchEventID(pto_shim::Loc at = pto_shim::Loc::Here()) { return FetchEventID(evt, at); }
    void Reset(pto_shim::Loc at = pto_shim::Loc::Here()) { pto_shim::PipeReset({"TPipe::Reset", at}, id); }
    void Destroy() { pto_shim::PipeClose(id); }

private:
    int id;
};

}   // namespace AscendC
