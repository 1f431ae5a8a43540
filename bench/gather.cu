// Copies rows of the pinned sample store, picked by a list, side by side into a batch on the device.
//
// The list and the store are read over the link. A few blocks with several loads in flight each
// fill it, and leave the other multiprocessors to the network that runs at the same time.
// A row must be a multiple of 16 bytes.

#define LOADS 8

extern "C" __global__ void gather(
    const uint4 *store, const int *rows, uint4 *batch, unsigned row_vectors, unsigned total)
{
    const unsigned threads = gridDim.x * blockDim.x;
    unsigned first = blockIdx.x * blockDim.x + threadIdx.x;
    for (; first < total; first += LOADS * threads) {
        uint4 loaded[LOADS];
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            const unsigned at = first + i * threads;
            if (at < total) {
                const unsigned sample = at / row_vectors;
                loaded[i] = store[(size_t)rows[sample] * row_vectors + at % row_vectors];
            }
        }
#pragma unroll
        for (int i = 0; i < LOADS; ++i) {
            const unsigned at = first + i * threads;
            if (at < total)
                batch[at] = loaded[i];
        }
    }
}
