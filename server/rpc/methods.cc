#include "server/rpc/methods.h"

#include <utility>

#include "server/rpc/streaming_method.h"
#include "server/usecase/get_creation.h"
#include "server/usecase/get_user_intent.h"

namespace userintent::rpc {
namespace {

template <auto kRequestCall, typename Request, typename Response>
std::unique_ptr<PostedMethod> Row(AsyncService& service, MethodContext& context, const UseCases& use_cases,
                                  const MethodOptions& options,
                                  usecase::CallerLeft (*handler)(const UseCases&, usecase::Call<Request, Response>&&)) {
  return std::make_unique<UnaryMethod<Request, Response, kRequestCall, AsyncService>>(
      service, context, options,
      [use_cases, handler](usecase::Call<Request, Response>&& call) { return handler(use_cases, std::move(call)); });
}

}  // namespace

std::string_view ServiceName() { return v1::UserIntentService::service_full_name(); }

std::vector<std::unique_ptr<PostedMethod>> NewMethods(AsyncService& service, MethodContext& context,
                                                      const UseCases& use_cases) {
  std::vector<std::unique_ptr<PostedMethod>> methods;
  methods.push_back(Row<&AsyncService::RequestCreateUserIntent>(
      service, context, use_cases, {.method = Method::kCreateUserIntent, .posted = 256},
      +[](const UseCases& use, usecase::CreateCall&& call) { return use.creations.Create(std::move(call)); }));
  methods.push_back(Row<&AsyncService::RequestGetCreation>(
      service, context, use_cases, {.method = Method::kGetCreation, .posted = 16},
      +[](const UseCases& use, usecase::GetCreationCall&& call) -> usecase::CallerLeft {
        usecase::GetCreation(use.ledger, use.executor, use.email_attempt_limit, std::move(call));
        return nullptr;
      }));
  methods.push_back(Row<&AsyncService::RequestGetUserIntent>(
      service, context, use_cases, {.method = Method::kGetUserIntent, .posted = 64, .errors_say_sent = false},
      +[](const UseCases& use, usecase::GetUserIntentCall&& call) {
        return usecase::GetUserIntent(use.authorization.reads, std::move(call));
      }));
  methods.push_back(Row<&AsyncService::RequestGetAuthorizationUrl>(
      service, context, use_cases, {.method = Method::kGetAuthorizationUrl, .posted = 16, .errors_say_sent = false},
      +[](const UseCases& use, usecase::GetAuthorizationUrlCall&& call) {
        return usecase::GetAuthorizationUrl(use.authorization, std::move(call));
      }));
  methods.push_back(std::make_unique<StreamingMethod<v1::WatchUserIntentsRequest, v1::WatchUserIntentsResponse,
                                                     &AsyncService::RequestWatchUserIntents, AsyncService>>(
      service, context, MethodOptions{.method = Method::kWatchUserIntents, .posted = 16, .errors_say_sent = false},
      [use_cases](usecase::WatchCall&& call) { return usecase::WatchUserIntents(use_cases.watch, std::move(call)); }));
  return methods;
}

}  // namespace userintent::rpc
