// Images that several threads pack are those of one.
#include "gpu_worker/packing.h"

#include <gtest/gtest.h>

#include "tests/testing/tiny_llama.h"

namespace thermocline::testing {
namespace {

TEST(Packing, ByThreadsGivesTheImagesOfOneJobAfterAnother) {
  TinyLlama model;
  model.type = TensorType::kQ8_0;
  model.d_model = 128;
  model.d_ff = 8192;
  const Bytes bytes = model.Builder().Build();
  const auto file = GgufFile::Parse(bytes, "model");
  ASSERT_TRUE(file.ok()) << file.status();
  const GgufTensor* gate = FindRole(**file, Role::kFfnGate, 1);
  const std::vector<Range> neurons = {{5, 4000}, {4001, 4002}, {4100, 8190}};
  kernels::DeviceMatrix rows;
  kernels::DeviceNeurons down;
  const std::vector<PackJob> jobs = {PackRows(file->get(), gate, neurons, {0, 128}, &rows),
                                     PackRows(file->get(), gate, {{9, 9}}, {0, 128}, &rows),
                                     PackNeurons(file->get(), 1, neurons, 128, &down)};
  EXPECT_EQ(down.n_neurons, 3995 + 1 + 4090);
  ASSERT_GE(ImageBytes(jobs), 2 << 20) << "too little for a second thread";
  std::vector<uint8_t> expected(ImageBytes(jobs)), actual(ImageBytes(jobs));
  uint8_t* at = expected.data();
  for (const PackJob& job : jobs) {
    job.pack(at, 0, job.n_units);
    at += AlignedImage(job.n_bytes);
  }
  int64_t n_calls = 0;
  Pack(jobs, actual.data(), [&] { ++n_calls; });
  EXPECT_GT(n_calls, 10);
  EXPECT_EQ(actual, expected);
}

}  // namespace
}  // namespace thermocline::testing
