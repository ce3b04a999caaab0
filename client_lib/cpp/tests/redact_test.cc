#include "userintent/redact.h"

#include <sstream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/protobuf/descriptor.h"
#include "google/protobuf/descriptor.pb.h"
#include "google/protobuf/dynamic_message.h"
#include "userintent/client.h"
#include "userintent/v1/options.pb.h"
#include "userintent/v1/user_intent_service.pb.h"

namespace userintent {
namespace {

using ::google::protobuf::FieldDescriptor;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

std::vector<std::string> Forms(const v1::CreateUserIntentRequest& request) {
  std::ostringstream out;
  out << request;
  struct Sink {
    void Append(const std::string& more) { text += more; }
    std::string text;
  } sink;
  AbslStringify(sink, request);
  // The last one is what a failed expectation shows.
  return {Redacted(request), out.str(), sink.text, testing::PrintToString(request)};
}

TEST(RedactTest, EveryFormFollowsTheOption) {
  v1::CreateUserIntentRequest request;
  const auto* reflection = request.GetReflection();
  int personal = 0;
  for (int i = 0; i < request.GetDescriptor()->field_count(); ++i) {
    const FieldDescriptor* field = request.GetDescriptor()->field(i);
    if (field->is_map()) {
      (*request.mutable_metadata())["canary"] = "canary";
    } else if (field->cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
      const bool hidden = field->options().GetExtension(v1::personal_data);
      personal += hidden;
      reflection->SetString(&request, field, hidden ? "canary" : "shown-" + std::to_string(i));
    }
  }
  ASSERT_EQ(personal, 15);
  request.set_verification_type(v1::VERIFICATION_TYPE_VERIFIED);
  request.set_allow_repeat(true);
  for (const std::string& text : Forms(request)) {
    EXPECT_THAT(text, Not(HasSubstr("canary")));
    EXPECT_THAT(text, AllOf(HasSubstr("request_id=\"shown-0\""), HasSubstr("email=<redacted>"),
                            HasSubstr("metadata=<redacted>"), HasSubstr("allow_repeat=true"),
                            HasSubstr("verification_type=VERIFICATION_TYPE_VERIFIED"),
                            HasSubstr("supersedes_request_id=\"shown-")));
  }
}

TEST(RedactTest, FieldsThatAreNotSetAreNotNamed) {
  EXPECT_EQ(Redacted(v1::CreateUserIntentRequest()), "CreateUserIntentRequest()");
}

TEST(RedactTest, OfUnknownFieldsOnlyTheirPresence) {
  v1::CreateUserIntentRequest request;
  request.GetReflection()->MutableUnknownFields(&request)->AddLengthDelimited(99, "canary");
  EXPECT_EQ(Redacted(request), "CreateUserIntentRequest(<unknown fields>)");
}

TEST(RedactTest, UnknownEnumValuesAreNumbers) {
  v1::CreateUserIntentRequest request;
  request.set_verification_type(static_cast<v1::VerificationType>(77));
  EXPECT_EQ(Redacted(request), "CreateUserIntentRequest(verification_type=77)");
}

TEST(RedactTest, NestedMessagesAndStringsAreOneLine) {
  CreateResult result;
  result.request_id = "id";
  result.tries = 2;
  result.response.mutable_user_intent()->set_id("a\n\"b\"");
  result.response.mutable_attempts()->set_used_min(1);
  std::ostringstream out;
  out << result;
  EXPECT_EQ(out.str(),
            "request_id id, tries 2: CreateUserIntentResponse(user_intent=UserIntent(id=\"a\\n\\\"b\\\"\"), "
            "attempts=AttemptBudget(used_min=1))");
}

TEST(RedactTest, PersonalFieldsOfANestedOrRepeatedMessageAreHidden) {
  // A message that holds requests, as no message of the service does today.
  google::protobuf::FileDescriptorProto file;
  file.set_name("test.proto");
  file.add_dependency("userintent/v1/user_intent_service.proto");
  auto* type = file.add_message_type();
  type->set_name("Batch");
  auto* field = type->add_field();
  field->set_name("requests");
  field->set_number(1);
  field->set_label(google::protobuf::FieldDescriptorProto::LABEL_REPEATED);
  field->set_type(google::protobuf::FieldDescriptorProto::TYPE_MESSAGE);
  field->set_type_name(".userintent.v1.CreateUserIntentRequest");
  google::protobuf::DescriptorPool pool(google::protobuf::DescriptorPool::generated_pool());
  const auto* built = pool.BuildFile(file);
  ASSERT_NE(built, nullptr);
  google::protobuf::DynamicMessageFactory factory(&pool);
  factory.SetDelegateToGeneratedFactory(true);
  const std::unique_ptr<google::protobuf::Message> batch(factory.GetPrototype(built->message_type(0))->New());
  auto* added = batch->GetReflection()->AddMessage(batch.get(), batch->GetDescriptor()->field(0));
  static_cast<v1::CreateUserIntentRequest*>(added)->set_email("canary");
  EXPECT_EQ(Redacted(*batch), "Batch(requests=[CreateUserIntentRequest(email=<redacted>)])");
}

}  // namespace
}  // namespace userintent
