// Kernels that are right (kernels.cu), and kernels with one bug each (bugs.cu).
#pragma once

#include "kernels/simt/vector_types.h"

namespace thermocline::kernels::emulated {

// indices [n_threads of the grid, 6]: threadIdx, blockIdx of each thread, threads of a block x
// fastest, then blocks.
void store_indices(unsigned* indices);

// sums [n_blocks]: of blockDim.x values each; values [n], any n.
void sum_blocks(const float* values, int n, float* sums);
// sums [n]: of values [n] up to each; one block.
void scan(const int* values, int n, int* sums);
// counts [256] += how often each byte is there; bytes [n].
void count_bytes(const unsigned char* bytes, int n, unsigned* counts);
// out [n_columns, n_rows] from in [n_rows, n_columns]; blocks of 32 x 8.
void transpose(const float* in, int n_rows, int n_columns, float* out);
// Turns values [blockDim.x] round, by way of the launch's shared memory.
void reverse(float4* values);
// words [blockDim.x]: what each thread finds in shared memory that nobody wrote.
void store_unwritten(unsigned* words);

// out [32, 8]: each lane's results of shuffles of its lane number.
void shuffle_all(int* out);
// Shuffles of other types: out [32], 1 where all were right.
void shuffle_types(int* out);
// out [32, 4]: ballot of odd lanes, any and all of it, all of a true; lanes from 20 on have exited.
void vote_all(unsigned* out);
// out [32]: sums of the lower half warp and of the upper, which take different ways.
void sum_halves(int* out);
// out [blockDim.x]: neighbours' values by way of shared memory, ordered by __syncwarp.
void exchange_in_warp(int* out);

// All blocks add their numbers, wait for each other `n_rounds` times, and each stores what all have
// added so far: out [n_rounds, n_blocks]. cells and arrived [1] are 0 at the start.
void sum_in_rounds(unsigned* cell, unsigned* arrived, int n_rounds, unsigned* out);
// sum [1] of values [n]: the block that comes last adds the partial sums [n_blocks] of all. arrived
// [1] is 0.
void sum_by_last_block(const int* values, int n, int* partial, unsigned* arrived, int* sum);
// Thread 32 waits for thread 0's word, in one block of 64. word [1] is 0.
void hand_over(unsigned* word, unsigned* out);
// In each round waits until *flag is odd as it counts up from 0, then counts it up itself.
void answer(unsigned* flag, unsigned n_rounds);

// Results of arithmetic on the device's terms, in the order of the test.
void compute(unsigned* out);
// cells [9]: each after all threads of a block have worked on it.
void use_atomics(unsigned* cells, unsigned long long* wide, float* sum);
void pass_arguments(float4 vector, double wide, char narrow, double* out);

// Bugs: what each does wrong is what its name says.
void exit_before_barrier(int n);
void meet_at_two_barriers(int n);
void shuffle_with_exited_lane(int* out);
void shuffle_from_lane_outside_mask(int* out);
void shuffle_without_own_lane(int* out);
void meet_in_two_operations(int* out);
void never_meet(int* out);
void trap_in_thread(int number);
void take_too_much_shared(int* out);
void spin_on_other_block(unsigned* flag);
void overrun_shared(int index, int* out);
void overrun_dynamic_shared(int index, int* out);
void overrun_global(int index, int* out);
void overrun_stack(int depth, int* out);

// Races, clean when `with_order`.
void reverse_in_shared(bool with_order, int* out);
void write_after_read(bool with_order, int* out);
void exchange_lanes(bool with_order, int* out);
void write_one_word_from_all_blocks(bool with_order, int* out);
void publish(bool with_order, int* data, unsigned* flag, int* out);
void count_plainly(bool with_order, int* count);
void write_neighbouring_bytes(unsigned char* out);
void read_what_threads_of_others_wrote(bool with_order, int* data, unsigned* arrived, int* out);

}  // namespace thermocline::kernels::emulated
