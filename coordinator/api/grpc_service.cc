// Calls of the public service; see grpc_service.h.
#include "coordinator/api/grpc_service.h"

#include "common/rpc/status.h"

namespace thermocline {

grpc::Status GrpcService::Generate(grpc::ServerContext* context, const v1::GenerateRequest* request,
                                   grpc::ServerWriter<v1::GenerateResponse>* writer) {
  return ToGrpc(inference_->Generate(
      *request, [&] { return context->IsCancelled(); },
      [&](const v1::GenerateResponse& message) { return writer->Write(message); }));
}

grpc::Status GrpcService::Tokenize(grpc::ServerContext* context, const v1::TokenizeRequest* request,
                                   v1::TokenizeResponse* response) {
  *response = inference_->Tokenize(*request);
  return grpc::Status::OK;
}

grpc::Status GrpcService::Detokenize(grpc::ServerContext* context,
                                     const v1::DetokenizeRequest* request,
                                     v1::DetokenizeResponse* response) {
  absl::StatusOr<v1::DetokenizeResponse> result = inference_->Detokenize(*request);
  if (!result.ok()) return ToGrpc(result.status());
  *response = *std::move(result);
  return grpc::Status::OK;
}

grpc::Status GrpcService::ListModels(grpc::ServerContext* context,
                                     const v1::ListModelsRequest* request,
                                     v1::ListModelsResponse* response) {
  *response = inference_->ListModels();
  return grpc::Status::OK;
}

grpc::Status GrpcService::Stats(grpc::ServerContext* context, const v1::StatsRequest* request,
                                v1::StatsResponse* response) {
  absl::StatusOr<v1::StatsResponse> result = inference_->Stats();
  if (!result.ok()) return ToGrpc(result.status());
  *response = *std::move(result);
  return grpc::Status::OK;
}

}  // namespace thermocline
