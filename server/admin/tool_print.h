// What userintent-ledger prints for a person: to stdout, one line a fact.
#pragma once

#include <string>

#include "userintent/admin/v1/ledger_admin_service.pb.h"

namespace userintent::admin {

std::string Word(v1::RequestState state);
const char* Meaning(const v1::Request& request);  // of its state

void Line(const char* name, const std::string& value);
void Print(const v1::ShowRequestResponse& response);
void Print(const v1::ListUnresolvedResponse& response);
void Print(const v1::GetStatisticsResponse& statistics);
void Print(const v1::ResolveRequestResponse& response);
void Print(const v1::ListAuditResponse& response);
void Print(const v1::ListConflictsResponse& response);
void Print(const v1::FindRequestsResponse& response);
void Print(const v1::Copy& copy);
void Print(const v1::BackUpResponse& response);

}  // namespace userintent::admin
