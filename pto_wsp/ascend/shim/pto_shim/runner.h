// main() of a program that runs exported kernels on buffers from a file; see ascend/build.py.
//
//   request   lines, then the bytes of the buffers that have some, one after another
//     seed <byte> / cores <cubes> <vectors>
//     buffer <bytes> <0|1: has contents> <name>
//     launch <kernel> <blocks> <arguments> then so many of:  gm <buffer> <byte offset>  |  word <16 hex digits>
//     end
//   answer    the bytes of all buffers, one after another
#pragma once
#include "launch.h"
#include "machine.h"

namespace pto_shim {

inline int Refuse(const char *text, const char *detail)
{
    std::fprintf(stderr, "pto_shim: request: %s %s\n", text, detail);
    return 87;
}
inline int RunRequest(const char *request, const char *answer)
{
    std::FILE *in = std::fopen(request, "rb");
    if (in == nullptr) {
        return Refuse("cannot open", request);
    }
    struct Started {
        const Entry *entry;
        int64_t blocks;
        std::vector<std::pair<int, uint64_t>> arguments;   // buffer (-1: a word), offset or word
    };
    struct Given {
        uint8_t *data;
        uint64_t bytes;
        bool full;
    };
    std::vector<Given> buffers;
    std::vector<Started> launches;
    Machine &m = TheMachine();
    char word[64], name[512];
    while (std::fscanf(in, "%63s", word) == 1 && std::strcmp(word, "end") != 0) {
        long long a = 0, b = 0;
        int n = 0;
        if (std::strcmp(word, "seed") == 0 && std::fscanf(in, "%lld", &a) == 1) {
            m.poison = static_cast<uint8_t>(a);
        } else if (std::strcmp(word, "cores") == 0 && std::fscanf(in, "%lld %lld", &a, &b) == 2) {
            m.cubes = static_cast<int>(a);
            m.vectors = static_cast<int>(b);
        } else if (std::strcmp(word, "buffer") == 0 && std::fscanf(in, "%lld %lld %511s", &a, &b, name) == 3) {
            auto *data = static_cast<uint8_t *>(GmAllocate(static_cast<uint64_t>(a), name));
            if (data == nullptr) {
                return Refuse("no memory for", name);
            }
            buffers.push_back({data, static_cast<uint64_t>(a), b != 0});
        } else if (std::strcmp(word, "launch") == 0 && std::fscanf(in, "%511s %lld %d", name, &a, &n) == 3) {
            const Entry *e = Entries();
            while (e != nullptr && std::strcmp(e->name, name) != 0) {
                e = e->next;
            }
            if (e == nullptr) {
                return Refuse("no kernel", name);
            }
            if (e->parameters != static_cast<size_t>(n)) {
                std::snprintf(word, sizeof word, "takes %zu arguments, got %d", e->parameters, n);
                return Refuse(name, word);
            }
            Started s{e, a, {}};
            for (int i = 0; i < n; ++i) {
                unsigned long long v = 0;
                int buffer = -1;
                if (std::fscanf(in, "%63s", word) != 1 || (std::strcmp(word, "gm") == 0 ? std::fscanf(in, "%d %llu", &buffer, &v) != 2
                                                                                        : std::fscanf(in, "%llx", &v) != 1)) {
                    return Refuse("cannot read an argument of", name);
                }
                s.arguments.push_back({buffer, v});
            }
            launches.push_back(s);
        } else {
            return Refuse("cannot read line", word);
        }
    }
    std::fgetc(in);   // the newline after "end"
    for (Given &g : buffers) {
        if (g.full) {
            if (std::fread(g.data, 1, g.bytes, in) != g.bytes) {
                return Refuse("too few bytes in", request);
            }
            GmSetReady(g.data, g.bytes);
        }
    }
    std::fclose(in);
    for (const Started &s : launches) {
        std::vector<uint64_t> words;
        for (auto &argument : s.arguments) {
            words.push_back(argument.first < 0 ? argument.second
                                               : reinterpret_cast<uintptr_t>(buffers[static_cast<size_t>(argument.first)].data) + argument.second);
        }
        s.entry->start(s.blocks, words.data());
    }
    std::FILE *out = std::fopen(answer, "wb");
    if (out == nullptr) {
        return Refuse("cannot write", answer);
    }
    for (const Given &g : buffers) {
        if (std::fwrite(g.data, 1, g.bytes, out) != g.bytes) {
            return Refuse("cannot write", answer);
        }
    }
    return std::fclose(out) == 0 ? 0 : Refuse("cannot write", answer);
}

}   // namespace pto_shim

int main(int argc, char **argv)
{
    return argc == 3 ? pto_shim::RunRequest(argv[1], argv[2]) : pto_shim::Refuse("usage: program", "<request> <answer>");
}
