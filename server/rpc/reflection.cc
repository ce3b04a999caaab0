#include "server/rpc/reflection.h"

#ifdef USERINTENT_GRPC_REFLECTION_V1

namespace userintent::rpc {

std::unique_ptr<grpc::Service> NewReflectionService() { return nullptr; }

}  // namespace userintent::rpc

#else

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <set>
#include <string>
#include <vector>

#include "grpc/health/v1/health.grpc.pb.h"
#include "grpc/reflection/v1/reflection.grpc.pb.h"
#include "userintent/v1/user_intent_service.grpc.pb.h"

namespace userintent::rpc {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::DescriptorPool;
using google::protobuf::FieldDescriptor;
using google::protobuf::FileDescriptor;
using grpc::reflection::v1::ServerReflectionRequest;
using grpc::reflection::v1::ServerReflectionResponse;

class Reflection final : public grpc::reflection::v1::ServerReflection::Service {
 public:
  grpc::Status ServerReflectionInfo(
      grpc::ServerContext*,
      grpc::ServerReaderWriter<ServerReflectionResponse, ServerReflectionRequest>* stream) override {
    ServerReflectionRequest request;
    while (stream->Read(&request)) {
      ServerReflectionResponse response;
      response.set_valid_host(request.host());
      *response.mutable_original_request() = request;
      Answer(request, &response);
      if (!stream->Write(response)) break;
    }
    return grpc::Status::OK;
  }

 private:
  static void Answer(const ServerReflectionRequest& request, ServerReflectionResponse* response) {
    const DescriptorPool& pool = *DescriptorPool::generated_pool();
    switch (request.message_request_case()) {
      case ServerReflectionRequest::kFileByFilename:
        return AnswerFile(pool.FindFileByName(request.file_by_filename()), response);
      case ServerReflectionRequest::kFileContainingSymbol:
        return AnswerFile(pool.FindFileContainingSymbol(request.file_containing_symbol()), response);
      case ServerReflectionRequest::kFileContainingExtension: {
        const auto& wanted = request.file_containing_extension();
        const Descriptor* const type = pool.FindMessageTypeByName(wanted.containing_type());
        const FieldDescriptor* const extension =
            type == nullptr ? nullptr : pool.FindExtensionByNumber(type, wanted.extension_number());
        return AnswerFile(extension == nullptr ? nullptr : extension->file(), response);
      }
      case ServerReflectionRequest::kAllExtensionNumbersOfType:
        return AnswerExtensions(pool, request.all_extension_numbers_of_type(), response);
      case ServerReflectionRequest::kListServices:
        for (const char* const name :
             {v1::UserIntentService::service_full_name(), grpc::health::v1::Health::service_full_name(),
              service_full_name(), "grpc.reflection.v1alpha.ServerReflection"}) {
          response->mutable_list_services_response()->add_service()->set_name(name);
        }
        return;
      case ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
        return Fail(grpc::StatusCode::INVALID_ARGUMENT, "no question", response);
    }
  }

  static constexpr const char* service_full_name() {
    return grpc::reflection::v1::ServerReflection::service_full_name();
  }

  static void Fail(grpc::StatusCode code, const char* message, ServerReflectionResponse* response) {
    response->mutable_error_response()->set_error_code(code);
    response->mutable_error_response()->set_error_message(message);
  }

  static void AnswerFile(const FileDescriptor* file, ServerReflectionResponse* response) {
    if (file == nullptr) return Fail(grpc::StatusCode::NOT_FOUND, "not known here", response);
    std::vector<const FileDescriptor*> files{file};
    std::set<const FileDescriptor*> seen{file};
    for (size_t i = 0; i < files.size(); ++i) {  // files grows meanwhile
      google::protobuf::FileDescriptorProto proto;
      files[i]->CopyTo(&proto);
      response->mutable_file_descriptor_response()->add_file_descriptor_proto(proto.SerializeAsString());
      for (int d = 0; d < files[i]->dependency_count(); ++d) {
        if (seen.insert(files[i]->dependency(d)).second) files.push_back(files[i]->dependency(d));
      }
    }
  }

  static void AnswerExtensions(const DescriptorPool& pool, const std::string& name,
                               ServerReflectionResponse* response) {
    const Descriptor* const type = pool.FindMessageTypeByName(name);
    if (type == nullptr) return Fail(grpc::StatusCode::NOT_FOUND, "not known here", response);
    std::vector<const FieldDescriptor*> extensions;
    pool.FindAllExtensions(type, &extensions);
    auto* const answer = response->mutable_all_extension_numbers_response();
    answer->set_base_type_name(name);
    for (const FieldDescriptor* const extension : extensions) answer->add_extension_number(extension->number());
  }
};

}  // namespace

std::unique_ptr<grpc::Service> NewReflectionService() { return std::make_unique<Reflection>(); }

}  // namespace userintent::rpc

#endif
