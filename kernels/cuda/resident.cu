// One kernel that stays on the device for all of a program: its blocks go through the steps
// together, with barriers over the grid between them, so that nothing is launched in between and
// the exchange polls where the work is. The bits are those of each op's own kernel (op.cuh).
#include "kernels/cuda/add_neurons.cuh"
#include "kernels/cuda/attend.cuh"
#include "kernels/cuda/copy.cuh"
#include "kernels/cuda/elementwise.cuh"
#include "kernels/cuda/exchange.cuh"
#include "kernels/cuda/functions.cuh"
#include "kernels/cuda/matmul.cuh"
#include "kernels/cuda/merge_tail.cuh"
#include "kernels/cuda/norm.cuh"
#include "kernels/cuda/rope_store.cuh"
#include "kernels/cuda/select.cuh"
#include "kernels/cuda/select_bits.cuh"
#include "kernels/cuda/stamp.cuh"

namespace thermocline::kernels::SIMT_DEVICE {
namespace {

constexpr int kMinBlocks = 2;  // on a multiprocessor, where shared memory has room
constexpr int kPieces = sizeof(ProgramStep) / sizeof(uint4);
static_assert(kPieces <= kWarp);

// The units of a step that this warp or block does. Neighbours go to different blocks, so that few
// units are spread over the whole card. A function of its own for each op, so that what one keeps
// in registers is no burden on another.
template <typename Op>
__device__ __attribute__((noinline)) void run_units(const ProgramStep& step, uint8_t* shared) {
  const int warp = Op::kOfWarp ? static_cast<int>(threadIdx.x) / kWarp : 0;
  const int block = static_cast<int>(blockIdx.x);
  const int n_blocks = step.is_small != 0 ? 1 : static_cast<int>(gridDim.x);
  const int n_places = n_blocks * (Op::kOfWarp ? kBlockWarps : 1);
  if (block >= n_blocks) return;
  int unit = warp * n_blocks + block - step.skew % n_places;
  if (unit < 0) unit += n_places;
  const auto& call = *reinterpret_cast<const typename Op::Call*>(step.call);
  auto* const own = reinterpret_cast<typename Op::Shared*>(shared) + warp;
  for (; unit < step.n_units; unit += n_places) {
    Op::run(call, unit, own);
    if constexpr (__is_empty(typename Op::Shared)) continue;
    if constexpr (Op::kOfWarp) {
      __syncwarp();
    } else {
      __syncthreads();
    }
  }
}

template <typename... Ops>
struct OpList {
  static __device__ __forceinline__ void run(const ProgramStep& step, uint8_t* shared) {
    const int op = step.op;
    (void)((op == Ops::kNumber && (run_units<Ops>(step, shared), true)) || ...);
  }
};

template <TensorType... kTypes>
struct Types {};
using AllTypes = Types<TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0,
                       TensorType::kQ4_0, TensorType::kQ4_K, TensorType::kQ5_K, TensorType::kQ6_K>;
using RowTypes = Types<TensorType::kF32, TensorType::kF16, TensorType::kBF16, TensorType::kQ8_0,
                       TensorType::kQ4_0>;  // of ffn_down_t
using PlaneTypes = Types<TensorType::kQ8_0, TensorType::kQ4_0, TensorType::kQ4_K, TensorType::kQ5_K,
                         TensorType::kQ6_K>;

template <typename... Lists>
struct Joined;
template <typename... Ops>
struct Joined<OpList<Ops...>> {
  using List = OpList<Ops...>;
};
template <typename... A, typename... B, typename... More>
struct Joined<OpList<A...>, OpList<B...>, More...> : Joined<OpList<A..., B...>, More...> {};

template <TensorType... kTypes>
OpList<Matmul<kTypes, 1>...> matmuls(Types<kTypes...>);
template <bool kHasPlanes, TensorType... kTypes>
OpList<AddChunk<kTypes, kHasPlanes, 1>...> chunks(Types<kTypes...>);
template <DeviceKvType kType>
using OfCache = OpList<RopeStore<kType>, AttendTiles<kType, 1>, AttendTiles<kType, 4>,
                       AttendTiles<kType, 8>, AttendTiles<kType, 16>>;
using Others =
    OpList<RmsNorm, ExchangeOp, Gated<Relu>, Gated<ReluRelu>, Gated<Silu>, Quantize,
           Select<kBlockWarps>, MergeTiles, AddChunks, Add, SelectBits, Copy, MergeTail, Stamp>;
using AllOps = Joined<decltype(matmuls(AllTypes())), decltype(chunks<false>(RowTypes())),
                      decltype(chunks<true>(PlaneTypes())), OfCache<DeviceKvType::kF16>,
                      OfCache<DeviceKvType::kQ8_0>, Others>::List;

// What each block has done by now is seen by all of them behind it; *arrived is 0 at the start.
__device__ __forceinline__ void wait_for_grid(unsigned* arrived, unsigned target) {
  if (threadIdx.x == 0) {
    __threadfence();
    atomicAdd(arrived, 1u);
    while (static_cast<int>(simt::load_acquire(arrived) - target) < 0) simt::yield();
    __threadfence();
  }
  __syncthreads();
}

__global__ void __launch_bounds__(kBlockThreads, kMinBlocks)
    resident_kernel(const ProgramStep* steps, int64_t n_steps, unsigned* arrived) {
  if (n_steps == 0) return;
  SHARED(fetched, ProgramStep[2]);
  DYNAMIC_SHARED(shared, uint8_t);
  const bool fetches = threadIdx.x < kPieces;
  const auto* const pieces = reinterpret_cast<const uint4*>(steps) + threadIdx.x;
  if (fetches) reinterpret_cast<uint4*>(&fetched[0])[threadIdx.x] = pieces[0];
  __syncthreads();
  unsigned target = 0;
  for (int64_t i = 0; i < n_steps; ++i) {
    uint4 next = make_uint4(0, 0, 0, 0);  // on its way during this step
    const bool has_next = i + 1 < n_steps;
    if (fetches && has_next) next = pieces[(i + 1) * kPieces];
    AllOps::run(fetched[i % 2], shared);
    if (!has_next) return;
    if (fetches) reinterpret_cast<uint4*>(&fetched[(i + 1) % 2])[threadIdx.x] = next;
    __syncthreads();
    if (fetched[(i + 1) % 2].order == StepOrder::kInGrid) {
      target += gridDim.x;
      wait_for_grid(arrived, target);
    }
  }
}

#ifdef __CUDACC__
// As many as can be there at once; 0 with an error.
cudaError_t count_blocks(size_t shared_bytes, unsigned* n_blocks) {
  int card = 0, n_multiprocessors = 0, of_multiprocessor = 0;
  cudaError_t error = cudaGetDevice(&card);
  if (error != cudaSuccess) return error;
  error = cudaDeviceGetAttribute(&n_multiprocessors, cudaDevAttrMultiProcessorCount, card);
  if (error != cudaSuccess) return error;
  error = cudaOccupancyMaxActiveBlocksPerMultiprocessor(&of_multiprocessor, resident_kernel,
                                                        kBlockThreads, shared_bytes);
  *n_blocks = static_cast<unsigned>(n_multiprocessors * of_multiprocessor);
  return error;
}

LaunchError launch_resident(DeviceStream* stream, size_t shared_bytes, const ProgramStep* steps,
                            int64_t n_steps, uint32_t* barrier) {
  unsigned n_blocks = 0;
  const cudaError_t error = count_blocks(shared_bytes, &n_blocks);
  if (error != cudaSuccess) return error;
  void* arguments[] = {&steps, &n_steps, &barrier};
  return cudaLaunchCooperativeKernel(resident_kernel, dim3(n_blocks), dim3(kBlockThreads),
                                     arguments, shared_bytes,
                                     static_cast<cudaStream_t>(stream->native));
}
#else
constexpr unsigned kEmulatedBlocks = 2;

LaunchError launch_resident(DeviceStream* stream, size_t shared_bytes, const ProgramStep* steps,
                            int64_t n_steps, uint32_t* barrier) {
  return static_cast<LaunchError>(simt::launch(
      static_cast<simt::Stream*>(stream->native),
      {kResidentKernel, kEmulatedBlocks, kBlockThreads, shared_bytes, /*cooperative=*/true},
      resident_kernel, steps, n_steps, barrier));
}
#endif

}  // namespace

LaunchError run_program(DeviceStream* stream, const DeviceProgram& program,
                        const ProgramStep* steps, uint32_t* barrier) {
  return launch_resident(stream, static_cast<size_t>(program.shared_bytes), steps, program.n_steps,
                         barrier);
}

}  // namespace thermocline::kernels::SIMT_DEVICE
