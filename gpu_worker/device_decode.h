// Steps of one token in this host's memory: one graph a step, whose exchanges the device does by
// itself. Nothing is copied by the host's hand and nothing synchronized between the layers. Between
// the copies at its start and end a graph has either a kernel for each operation, or one that stays
// on the device and goes through all of them (DeviceProgram); which of these forms is the faster
// one on a card, a step without other ranks tells at the start.
//
// All graphs are captured at the start. They differ in how many tiles of positions attention is
// launched for: 1, 2, 4, ..., all of the device's context. A step takes the smallest that covers
// its position; tiles beyond it end at once. One more, of all tiles, is for steps with a tail. Rows
// of logits are not left by a graph but behind it.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/exchange/exchange.h"
#include "gpu_worker/device.h"
#include "gpu_worker/device_layers.h"

namespace thermocline {

class DeviceDecode {
 public:
  // What the graphs of a rank take of the device's memory, at most, a node of one node_bytes
  // (Device::graph_node_bytes).
  static int64_t GraphBytes(const DeviceLayers::Options& options, int64_t n_layers,
                            int64_t node_bytes);
  // Registers the exchange's memory with the device, chooses the form and captures the graphs; when
  // it returns, they have their memory. All must outlive the object. DeadlineExceeded where a step
  // without other ranks does not end.
  static absl::StatusOr<std::unique_ptr<DeviceDecode>> Create(DeviceLayers* layers, Device* device,
                                                              Exchange* exchange);
  // A step that is staged, to the point where FinishStep is due.
  absl::Status Run(const Step& step);
  // "a graph", "a resident kernel", with how long a step takes without other ranks where that was
  // measured.
  const std::string& form_text() const { return form_text_; }

 private:
  // What the device reads before its first exchange and says after the last one.
  struct Control {
    kernels::DeviceStep step;
    uint32_t state;  // kernels::ExchangeState
  };

  DeviceDecode(DeviceLayers* layers, Device* device, Exchange* exchange)
      : layers_(layers),
        device_(device),
        exchange_(*exchange),
        access_(*exchange->device_access()) {}
  absl::Status Prepare();
  absl::Status ChooseForm();
  // Of a step without other ranks, in the form.
  absl::StatusOr<std::chrono::nanoseconds> TimeAlone(StepForm form);
  absl::StatusOr<std::chrono::nanoseconds> TimeLaunches(DeviceGraph* graph);
  absl::Status CaptureAll();
  // Of the staged step: any of one token, at positions below n_positions or with a tail. number:
  // which of the places for programs it has.
  absl::StatusOr<std::unique_ptr<DeviceGraph>> Capture(StepForm form, int64_t n_positions,
                                                       bool has_tail, int64_t number);
  absl::Status Enqueue(int64_t n_positions, bool has_tail, kernels::DeviceProgram* program,
                       uint8_t* place);
  absl::Status EnqueueLayers(int64_t n_positions, bool has_tail);
  int64_t max_steps() const;  // of a program
  DeviceGraph* GraphFor(const Step& step) const;
  // An exchange with the partial sum; one with nothing to add, in which nobody has anything.
  absl::Status Combine(uint32_t number, bool has_partial);
  absl::Status Meet(uint32_t number);
  absl::Status EnqueueExchange(uint32_t number, const float* partial, int64_t* times);
  absl::Status Await();

  DeviceLayers* const layers_;
  Device* const device_;
  Exchange& exchange_;
  DeviceAccess& access_;
  ExchangeMemory memory_;       // as the device sees it
  Control* control_ = nullptr;  // of the device
  Control* staged_ = nullptr;   // of the host, pinned
  StepForm form_ = StepForm::kGraph;
  std::string form_text_ = "a graph";
  uint8_t* programs_ = nullptr;                       // of the device; null where none is needed
  std::vector<std::unique_ptr<DeviceGraph>> graphs_;  // graphs_[i]: of up to 2^i tiles
  std::unique_ptr<DeviceGraph> tail_graph_;           // null: steps have no tail
};

}  // namespace thermocline
