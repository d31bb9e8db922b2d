// Who may talk to whom: plain text stays on the host, TLS asks both sides who they are.
#include "common/rpc/channel.h"

#include <gmock/gmock.h>
#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <fstream>
#include <string>

#include "common/rpc/status.h"
#include "gtest/gtest.h"
#include "proto/worker.grpc.pb.h"

namespace thermocline {
namespace {

using ::testing::HasSubstr;

TEST(ChannelTest, PlainTextIsForThisHostOnly) {
  for (const char* address :
       {"unix:/tmp/worker", "127.0.0.1:7000", "localhost:7000", "[::1]:7000", "127.8.8.8:1"}) {
    EXPECT_TRUE(ChannelTo(address, {}).ok()) << address;
    EXPECT_TRUE(ServerCredentialsFor(address, {}).ok()) << address;
  }
  for (const char* address : {"10.0.0.1:7000", "0.0.0.0:7000", "[::]:7000", "node7:7000",
                              "127.example.com:7000", "[fe80::1]:7000", ""}) {
    for (const absl::Status& status :
         {ChannelTo(address, {}).status(), ServerCredentialsFor(address, {}).status()}) {
      EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << address;
      EXPECT_THAT(std::string(status.message()), HasSubstr("--tls-ca, --tls-cert and --tls-key"));
    }
  }
}

TEST(ChannelTest, HalfOfTheTlsFilesIsRefused) {
  EXPECT_EQ(ChannelTo("127.0.0.1:1", {"ca.pem", "", ""}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ServerCredentialsFor("127.0.0.1:1", {"", "c.pem", "k.pem"}).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(ChannelTo("127.0.0.1:1", {"/none/ca", "/none/cert", "/none/key"}).status().code(),
            absl::StatusCode::kNotFound);
}

// Certificates made by the openssl command, in a folder of the test's own.
class TlsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = ::testing::TempDir() + "/tls-" + std::to_string(getpid());
    const std::string script = R"(
      set -e; mkdir -p "$0"; cd "$0"
      for ca in ours theirs; do
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \
          -subj /CN=$ca -keyout $ca-ca.key -out $ca-ca.pem
        openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
          -subj /CN=worker -keyout $ca.key -out $ca.csr
        echo "subjectAltName=IP:127.0.0.1" > san
        openssl x509 -req -in $ca.csr -CA $ca-ca.pem -CAkey $ca-ca.key -CAcreateserial -days 2 \
          -extfile san -out $ca.pem
      done)";
    const std::string command = "bash -c '" + script + "' " + folder_ + " 2> /dev/null";
    ASSERT_EQ(std::system(command.c_str()), 0) << "needs the openssl command";
  }

  void TearDown() override { std::system(("rm -r " + folder_).c_str()); }

  // Certificate and key of `who`, trusting the CA of `trusted`.
  TlsFiles Files(const std::string& who, const std::string& trusted) const {
    return {.ca = folder_ + "/" + trusted + "-ca.pem",
            .cert = folder_ + "/" + who + ".pem",
            .key = folder_ + "/" + who + ".key"};
  }

  // A call to a server with our certificates.
  absl::Status Call(const TlsFiles& client) {
    struct Service : worker::v1::Worker::Service {
      grpc::Status Stats(grpc::ServerContext*, const worker::v1::StatsRequest*,
                         worker::v1::StatsResponse* response) override {
        response->set_rank(4);
        return grpc::Status::OK;
      }
    } service;
    const std::string any_port = "127.0.0.1:0";
    int port = 0;
    grpc::ServerBuilder builder;
    ConfigureServer(&builder, any_port);
    builder.AddListeningPort(any_port,
                             ServerCredentialsFor(any_port, Files("ours", "ours")).value(), &port);
    builder.RegisterService(&service);
    const std::unique_ptr<grpc::Server> server = builder.BuildAndStart();
    const auto stub =
        worker::v1::Worker::NewStub(ChannelTo("127.0.0.1:" + std::to_string(port), client).value());
    grpc::ClientContext context;
    context.set_deadline(std::chrono::system_clock::now() + std::chrono::seconds(10));
    worker::v1::StatsResponse response;
    const grpc::Status status = stub->Stats(&context, {}, &response);
    EXPECT_EQ(response.rank(), status.ok() ? 4 : 0);
    return FromGrpc(status);
  }

  std::string folder_;
};

TEST_F(TlsTest, BothSidesOfOneCaTalk) { EXPECT_EQ(Call(Files("ours", "ours")), absl::OkStatus()); }

TEST_F(TlsTest, AServerOfAnotherCaIsNotTalkedTo) {
  EXPECT_EQ(Call(Files("ours", "theirs")).code(), absl::StatusCode::kUnavailable);
}

TEST_F(TlsTest, AClientOfAnotherCaIsRefused) {
  EXPECT_EQ(Call(Files("theirs", "ours")).code(), absl::StatusCode::kUnavailable);
}

TEST_F(TlsTest, PlainTextIsRefusedByAServerWithTls) {
  EXPECT_EQ(Call({}).code(), absl::StatusCode::kUnavailable);
}

}  // namespace
}  // namespace thermocline
