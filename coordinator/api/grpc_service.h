// The public gRPC service: a thin layer that hands calls to Inference. The server around it is
// grpc_server.h.
#pragma once

#include "coordinator/engine/inference.h"
#include "proto/inference.grpc.pb.h"

namespace thermocline {

class GrpcService final : public v1::Inference::Service {
 public:
  explicit GrpcService(Inference* inference) : inference_(inference) {}  // must outlive this

  grpc::Status Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                        grpc::ServerWriter<v1::GenerateResponse>* writer) override;
  grpc::Status Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                        v1::TokenizeResponse* response) override;
  grpc::Status Detokenize(grpc::ServerContext* context, const v1::DetokenizeRequest* request,
                          v1::DetokenizeResponse* response) override;
  grpc::Status ListModels(grpc::ServerContext* context, const v1::ListModelsRequest* request,
                          v1::ListModelsResponse* response) override;
  grpc::Status Stats(grpc::ServerContext* context, const v1::StatsRequest* request,
                     v1::StatsResponse* response) override;

 private:
  Inference* inference_;
};

}  // namespace thermocline
