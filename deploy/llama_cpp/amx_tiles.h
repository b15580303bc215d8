// Put before each C++ file of llama.cpp (see build.cmake).
//
// GCC's _tile_loadconfig says that it reads one pointer's worth of the 64 bytes that the instruction reads, so GCC 12
// drops the stores to the others as dead. Said in full here. Other compilers, and processors without AMX, see nothing.
#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__)
#include <immintrin.h>
#define _tile_loadconfig(config) __asm__ volatile("ldtilecfg\t%X0" ::"m"(*(const char (*)[64])(config)))
#endif
