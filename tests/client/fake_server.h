// A daemon whose answers a test scripts: both services over real gRPC, on a loopback port of its
// own.
#ifndef TESTS_CLIENT_FAKE_SERVER_H_
#define TESTS_CLIENT_FAKE_SERVER_H_

#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>

#include <functional>
#include <memory>
#include <string>

#include "absl/strings/str_cat.h"
#include "proto/distorch.grpc.pb.h"

namespace distorch {

template <typename Request, typename Response>
using UnaryHook = std::function<grpc::Status(grpc::ServerContext*, const Request&, Response*)>;
template <typename Request, typename Event>
using StreamHook =
    std::function<grpc::Status(grpc::ServerContext*, const Request&, grpc::ServerWriter<Event>*)>;

// Hooks are set before the first call and run on the server's threads. A method without one is
// UNIMPLEMENTED.
#define DISTORCH_FAKE_UNARY(Method)                                                     \
  UnaryHook<v1::Method##Request, v1::Method##Response> on##Method;                      \
  grpc::Status Method(grpc::ServerContext* context, const v1::Method##Request* request, \
                      v1::Method##Response* response) override {                        \
    if (on##Method) return on##Method(context, *request, response);                     \
    return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "not scripted: " #Method);     \
  }
#define DISTORCH_FAKE_STREAM(Method, Request, Event)                                \
  StreamHook<v1::Request, v1::Event> on##Method;                                    \
  grpc::Status Method(grpc::ServerContext* context, const v1::Request* request,     \
                      grpc::ServerWriter<v1::Event>* writer) override {             \
    if (on##Method) return on##Method(context, *request, writer);                   \
    return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "not scripted: " #Method); \
  }

class FakeModels final : public v1::ModelService::Service {
 public:
  DISTORCH_FAKE_UNARY(ListDevices)
  DISTORCH_FAKE_UNARY(ListLinks)
  DISTORCH_FAKE_UNARY(ListCheckpoints)
  DISTORCH_FAKE_UNARY(LoadCheckpoint)
  DISTORCH_FAKE_STREAM(LoadCheckpointStream, LoadCheckpointRequest, LoadCheckpointEvent)
  DISTORCH_FAKE_UNARY(ApplyLora)
  DISTORCH_FAKE_UNARY(SetClipSkip)
  DISTORCH_FAKE_UNARY(ListModels)
  DISTORCH_FAKE_UNARY(Unload)

  UnaryHook<v1::LoadCheckpointRequest, v1::PlanCheckpointResponse> onPlanCheckpoint;
  grpc::Status PlanCheckpoint(grpc::ServerContext* context,
                              const v1::LoadCheckpointRequest* request,
                              v1::PlanCheckpointResponse* response) override {
    if (onPlanCheckpoint) return onPlanCheckpoint(context, *request, response);
    return grpc::Status(grpc::StatusCode::UNIMPLEMENTED, "not scripted: PlanCheckpoint");
  }
};

class FakeInference final : public v1::InferenceService::Service {
 public:
  DISTORCH_FAKE_STREAM(Infer, InferRequest, InferEvent)
  DISTORCH_FAKE_UNARY(EncodeText)
  DISTORCH_FAKE_STREAM(Sample, SampleRequest, SampleEvent)
  DISTORCH_FAKE_UNARY(Denoise)
  DISTORCH_FAKE_UNARY(DecodeLatent)
  DISTORCH_FAKE_UNARY(EncodeImage)
};

#undef DISTORCH_FAKE_UNARY
#undef DISTORCH_FAKE_STREAM

class FakeServer {
 public:
  FakeServer() {
    grpc::ServerBuilder builder;
    builder.AddListeningPort("127.0.0.1:0", grpc::InsecureServerCredentials(), &port_);
    builder.SetMaxReceiveMessageSize(-1);
    builder.RegisterService(&models);
    builder.RegisterService(&inference);
    server_ = builder.BuildAndStart();
  }
  ~FakeServer() { Stop(); }

  // Waits for the hooks under way, so that what they refer to may go.
  void Stop() { server_->Shutdown(); }

  std::string address() const { return absl::StrCat("127.0.0.1:", port_); }

  FakeModels models;
  FakeInference inference;

 private:
  int port_ = 0;
  std::unique_ptr<grpc::Server> server_;
};

}  // namespace distorch

#endif  // TESTS_CLIENT_FAKE_SERVER_H_
