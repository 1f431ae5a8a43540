// Makes a network's input from a batch's samples.
//
// samples: the address of each sample of the batch, in device memory or in host memory that the GPU reads over its
// link. The list is in memory too, so that a CUDA graph need not change with it.
//
// prepare_B_LAYOUT: samples are uint8 images [area][3]; every value is looked up in table [3][256], which has the bits
// of the network's type, B bytes each. area: pixels of an image, a multiple of 16.
// gather: samples are in the network's layout already, `vectors` times 16 bytes each.
//
// tools/compile_kernels.py compiles this into prepare.ptx, which the driver compiles for its GPU.

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;

// A thread takes 16 pixels at a time, 48 bytes. BYTE(i): the i-th of them.
#define BYTE(i) ((word[(i) / 4] >> ((i) % 4 * 8)) & 255)
#define LOOK_UP(pixel, colour) ((u32)shared[(colour) * 256 + BYTE((pixel) * 3 + (colour))])

#define FOR_EACH_16_PIXELS(T)                                                            \
    __shared__ T shared[768];                                                            \
    for (u32 i = threadIdx.x; i < 768; i += blockDim.x) shared[i] = table[i];            \
    __syncthreads();                                                                     \
    const u32 pieces = area / 16;                                                        \
    for (u32 at = blockIdx.x * blockDim.x + threadIdx.x; at < count * pieces;            \
         at += gridDim.x * blockDim.x) {                                                 \
        const u32 image = at / pieces, piece = at % pieces;                              \
        const uint4 *from = samples[image] + piece * 3;                                  \
        const uint4 a = from[0], b = from[1], c = from[2];                               \
        const u32 word[12] = {a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w, c.x, c.y, c.z, c.w};

// One byte, a plane for each colour.
extern "C" __global__ void prepare_1_NCHW(const uint4 *const *__restrict__ samples, const u8 *table, uint4 *out, u32 count, u32 area) {
    FOR_EACH_16_PIXELS(u8)
#pragma unroll
        for (u32 colour = 0; colour < 3; colour++) {
            u32 made[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++)
                made[i] = LOOK_UP(i * 4, colour) | LOOK_UP(i * 4 + 1, colour) << 8 |
                          LOOK_UP(i * 4 + 2, colour) << 16 | LOOK_UP(i * 4 + 3, colour) << 24;
            out[(image * 3 + colour) * pieces + piece] = make_uint4(made[0], made[1], made[2], made[3]);
        }
    }
}

// Where a pixel's colours are next to each other, a thread's 16 pixels of output are far from those of its neighbours.
// So a block puts what its threads read into shared memory, and its neighbouring threads write neighbouring 16 bytes:
// UNIT pixels from bytes[0] on, to *target.
#define BLOCK 128
#define TAKE(byte, colour) ((u32)shared[(colour) * 256 + bytes[byte]])
#define FOR_EACH_UNIT(T, UNIT)                                                           \
    __shared__ T shared[768];                                                            \
    __shared__ uint4 stage[BLOCK * 3];                                                   \
    for (u32 i = threadIdx.x; i < 768; i += BLOCK) shared[i] = table[i];                 \
    const u32 pieces = area / 16, total = count * pieces;                                \
    for (u32 first = blockIdx.x * BLOCK; first < total; first += gridDim.x * BLOCK) {    \
        const u32 at = first + threadIdx.x;                                              \
        __syncthreads();                                                                 \
        if (at < total) {                                                                \
            const uint4 *from = samples[at / pieces] + at % pieces * 3;                  \
            const uint4 a = from[0], b = from[1], c = from[2];                           \
            stage[threadIdx.x * 3] = a;                                                  \
            stage[threadIdx.x * 3 + 1] = b;                                              \
            stage[threadIdx.x * 3 + 2] = c;                                              \
        }                                                                                \
        __syncthreads();                                                                 \
        const u32 units = min(total - first, BLOCK) * (16 / UNIT);                       \
        _Pragma("unroll 4")                                                              \
        for (u32 unit = threadIdx.x; unit < units; unit += BLOCK) {                      \
            const u8 *bytes = (const u8 *)stage + unit * (3 * UNIT);                     \
            uint4 *target = out + (size_t)first * (16 / UNIT) + unit;

// One byte, a pixel's colours and a zero next to each other.
extern "C" __global__ void prepare_1_CHW4(const uint4 *const *__restrict__ samples, const u8 *table, uint4 *out, u32 count, u32 area) {
    FOR_EACH_UNIT(u8, 4)
            u32 made[4];
#pragma unroll
            for (u32 i = 0; i < 4; i++)
                made[i] = TAKE(i * 3, 0) | TAKE(i * 3 + 1, 1) << 8 | TAKE(i * 3 + 2, 2) << 16;
            *target = make_uint4(made[0], made[1], made[2], made[3]);
        }
    }
}

// Two bytes, a plane for each colour.
extern "C" __global__ void prepare_2_NCHW(const uint4 *const *__restrict__ samples, const u16 *table, uint4 *out, u32 count, u32 area) {
    FOR_EACH_16_PIXELS(u16)
#pragma unroll
        for (u32 colour = 0; colour < 3; colour++)
#pragma unroll
            for (u32 half = 0; half < 2; half++) {
                u32 made[4];
#pragma unroll
                for (u32 i = 0; i < 4; i++)
                    made[i] = LOOK_UP(half * 8 + i * 2, colour) | LOOK_UP(half * 8 + i * 2 + 1, colour) << 16;
                out[((size_t)(image * 3 + colour) * pieces + piece) * 2 + half] = make_uint4(made[0], made[1], made[2], made[3]);
            }
    }
}

// Two bytes, a pixel's colours and a zero next to each other.
extern "C" __global__ void prepare_2_CHW4(const uint4 *const *__restrict__ samples, const u16 *table, uint4 *out, u32 count, u32 area) {
    FOR_EACH_UNIT(u16, 2)
            *target = make_uint4(TAKE(0, 0) | TAKE(1, 1) << 16, TAKE(2, 2), TAKE(3, 0) | TAKE(4, 1) << 16, TAKE(5, 2));
        }
    }
}

// Two bytes, a pixel's colours and five zeros next to each other.
extern "C" __global__ void prepare_2_HWC8(const uint4 *const *__restrict__ samples, const u16 *table, uint4 *out, u32 count, u32 area) {
    FOR_EACH_UNIT(u16, 1)
            *target = make_uint4(TAKE(0, 0) | TAKE(1, 1) << 16, TAKE(2, 2), 0, 0);
        }
    }
}

// Four bytes, a plane for each colour.
extern "C" __global__ void prepare_4_NCHW(const uint4 *const *__restrict__ samples, const u32 *table, uint4 *out, u32 count, u32 area) {
    FOR_EACH_16_PIXELS(u32)
#pragma unroll
        for (u32 colour = 0; colour < 3; colour++)
#pragma unroll
            for (u32 i = 0; i < 4; i++)
                out[((size_t)(image * 3 + colour) * pieces + piece) * 4 + i] = make_uint4(
                    LOOK_UP(i * 4, colour), LOOK_UP(i * 4 + 1, colour), LOOK_UP(i * 4 + 2, colour), LOOK_UP(i * 4 + 3, colour));
    }
}

extern "C" __global__ void gather(const uint4 *const *__restrict__ samples, uint4 *out, u32 count, u32 vectors) {
    const u32 total = count * vectors, step = gridDim.x * blockDim.x;
    u32 at = blockIdx.x * blockDim.x + threadIdx.x;
    for (; at + 3 * step < total; at += 4 * step) {
        uint4 piece[4];
#pragma unroll
        for (u32 i = 0; i < 4; i++) {
            const u32 place = at + i * step;
            piece[i] = samples[place / vectors][place % vectors];
        }
#pragma unroll
        for (u32 i = 0; i < 4; i++) out[at + i * step] = piece[i];
    }
    for (; at < total; at += step) out[at] = samples[at / vectors][at % vectors];
}
