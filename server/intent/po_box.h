// po_box: does an address line name a post office box? Pure functions; any thread.
#pragma once

#include <string_view>

namespace userintent::intent {

// True when a PO box is spelled anywhere in the line: "PO Box 7", "P.O.Box", "P O B 7", "Post Office Box", "PO Drawer
// 7", "Apartado 7"... The line is valid UTF-8. Streets named Box-something, and the boxes of rural routes and of
// military addresses ("RR 2 Box 7", "PSC 3 Box 7"), are no PO boxes.
bool NamesPoBox(std::string_view line);

// True when the line is nothing but "Box" and a number, which the USPS reads as a PO box. For the first address line
// only: on the second it may be the rest of a rural or military address.
bool IsBareBox(std::string_view line);

}  // namespace userintent::intent
