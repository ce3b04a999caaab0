// po_box: does an address line name a post office box? Pure functions; any thread.
//
// Compared after Unicode NFKC, so that full-width and other compatibility letters count, with and without characters
// that cannot be seen. Look-alikes of other scripts (Cyrillic "РО Вох") are other letters and do not count: they are no
// compatibility forms, and a table of likenesses would find words in other languages that it must not.
#pragma once

#include <string_view>

namespace userintent::intent {

// True when a PO box is spelled anywhere in the line: "PO Box 7", "P.O.Box", "P O B 7", "Post Office Box", "PO Drawer
// 7", "Apartado 7", "Apdo Postal 7"...; or when the whole line is one of the other designations of USPS Publication 28
// with a number: "Drawer 7", "Lockbox 7", "Bin 7", "Caller 7", "Firm Caller 7". The line is valid UTF-8. Streets named
// Box-something or Drawer, and the boxes of rural routes and of military addresses ("RR 2 Box 7", "PSC 3 Box 7"), are
// no PO boxes; neither is a private mail box ("PMB 7").
bool NamesPoBox(std::string_view line);

// True when the line is nothing but "Box" and a number, which the USPS reads as a PO box. For the first address line
// only: on the second it may be the rest of a rural or military address.
bool IsBareBox(std::string_view line);

}  // namespace userintent::intent
