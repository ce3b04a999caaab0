// Spellings of PO boxes that must be seen, and address lines that must not be taken for one.
#include "server/intent/po_box.h"

#include "gtest/gtest.h"
#include "server/intent/text.h"

namespace userintent::intent {
namespace {

TEST(PoBox, Spellings) {
  for (const char* line : {
           "PO Box 12",
           "PO BOX 12",
           "po box 12",
           "Po Box 12",
           "P.O. Box 12",
           "P.O.Box 12",
           "P. O. Box 12",
           "P O Box 12",
           "P  O   Box 12",
           "PO  Box 12",
           "POBox 12",
           "POBOX12",
           "pobox",
           "P.O.BOX#12",
           "PO-Box 12",
           "P-O-Box 12",
           "P/O Box 12",
           "P,O, Box 12",
           "P_O_Box_12",
           "PO. Box 12",
           "PO Box",
           "P.O. Box No. 12",
           "PO Box # 12",
           "PO Box A",
           "PO Box: 12",
           "(PO Box 12)",
           "P0 Box 12",    // zero for O
           "P.0. B0x 12",  // twice
           "PO\xc2\xa0"
           "Box 12",  // no-break space
           "P\xe2\x80\x89O\xe3\x80\x80"
           "Box 12",  // thin and ideographic space
           "PO\xe2\x80\x93"
           "Box 12",  // en dash
           "PO Bx 12",
           "P.O. Drawer 12",
           "PO Dwr 12",
           "POB 12",
           "P.O.B. 12",
           "P O B 12",
           "POB #12",
           "POB No 12",
           "POB12",
           "Post Office Box 12",
           "POST OFFICE BOX 12",
           "PostOffice Box 12",
           "Post-Office-Box 12",
           "Post Ofc Box 12",
           "Post Off. Box 12",
           "Post Office Drawer 3",
           "Post Box 12",
           "Postal Box 12",
           "Postbox 12",
           "Apartado 12",
           "Apartado Postal 12",
           "12 Main Street, PO Box 7",
           "12 Main Street PO Box 7",
           "Suite 5; p.o. box 7",
           "Apt 3 (POB 7)",
           "12PO Box 7",
           "c/o Boxwood Inn, PO Box 7",
           "Calle Sol 3 Apartado 44",
           "P.O. Bin 12",
           "PO Caller 12",
           "Post Office Firm Caller 12",
           "P.O. Lockbox 12",
           "PO Lock Box 12",
           "Apdo Postal 12",
           "APDO. POSTAL 12",
           "Apdo. 12",
           "Apdo #12",
           "Aptdo. Postal 12",
           "Apartado de Correos 12",
           "Apartado Correos No. 12",
           "Calle Luna 5, Apdo Postal 12",
       }) {
    EXPECT_TRUE(NamesPoBox(line)) << line;
  }
}

// USPS Publication 28 writes these as PO BOX.
TEST(PoBox, OtherDesignationsAsTheWholeLine) {
  for (const char* line : {"Drawer 44", "DRAWER 44", "Dwr 44", "Drawer #44", "Drawer No. 44", "Drawer44", "Drawer 44A",
                           "(Drawer 44)", "Bin 44", "BIN 44", "Lockbox 1234", "Lock Box 12", "Lock-Box 12", "Lockb0x 7",
                           "Caller 44", "CALLER NO 44", "Firm Caller 44", "FIRM CALLER 54", "Firm-Caller 54"}) {
    EXPECT_TRUE(NamesPoBox(line)) << line;
  }
  for (const char* line :
       {"12 Drawer Ln",   "Drawer Lane 44", "Drawer",     "5 Caller St",  "Caller Street 5", "Caller",
        "1 Bin Brook Rd", "Bin Brook 1",    "44 Bin",     "Suite Bin 44", "Lockbox Road 12", "12 Lockbox Rd",
        "Firm 12",        "Bing 44",        "Binford 12", "Callerton 5",  "Building 44",     "Floor 44",
        "Dock 44",        "Lot 44",         "Bldg 44",    "Cabin 44",     "Lock 12"}) {
    EXPECT_FALSE(NamesPoBox(line)) << line;
    EXPECT_FALSE(IsBareBox(line)) << line;
  }
}

TEST(PoBox, CompatibilityLettersArePlainOnes) {
  for (const char* line : {
           "\uff30\uff2f \uff22\uff4f\uff58 12",                      // full-width letters
           "\uff30\uff2f\u3000\uff22\uff2f\uff38\u3000\uff11\uff12",  // full-width blank and digits too
           "PO \uff22ox 12",                                          // mixed
           "\U0001d40f\U0001d40e \U0001d401\U0001d428\U0001d431 12",  // bold, of mathematics
           "\u24c5\u24c4 \u24b7\u24de\u24e7 12",                      // in circles
           "PO Box \u2116 12",                                        // numero sign
           "\uff24\uff52\uff41\uff57\uff45\uff52 44",                 // a whole line
           "12 Main St, \uff30.\uff2f. Box 7",
       }) {
    EXPECT_TRUE(NamesPoBox(line)) << line;
  }
  EXPECT_TRUE(IsBareBox("\uff22\uff4f\uff58 \uff11\uff12"));
  for (const char* line : {"12 \uff22\uff4f\uff58wood Lane", "\uff11\uff12 Drawer Ln"}) {
    EXPECT_FALSE(NamesPoBox(line)) << line;
  }
}

TEST(PoBox, InvisibleCharactersHideNothing) {
  for (const char* line : {"PO B\u200box 12", "P\u00adO Bo\u00adx 12", "PO\u2060Box 12", "12 Main St\u200bPO Box 7",
                           "Dra\u200dwer 44", "\ufeffDrawer 44", "PO B\ufe0fox 12"}) {
    EXPECT_TRUE(NamesPoBox(line)) << line;
  }
  EXPECT_TRUE(IsBareBox("B\u200cox 12"));
}

// Other letters, not other forms of these: see po_box.h.
TEST(PoBox, LookAlikesOfOtherScriptsAreNotRead) {
  EXPECT_FALSE(NamesPoBox("\u0420\u041e \u0412\u043e\u0445 12"));  // Cyrillic
  EXPECT_FALSE(NamesPoBox("\u03a1\u039f \u0392\u03bf\u03c7 12"));  // Greek
}

TEST(PoBox, InnocentLines) {
  for (const char* line : {
           "",
           "120 Market Street",
           "12 Boxwood Lane",
           "12 Box Elder Road",
           "12 Boxer Way",
           "7 Boxcar Blvd",
           "44 Jukebox Court",
           "44 Mailbox Road",
           "Boxwood Apartments 12",
           "12 Poboxer Street",  // a word that only begins like one
           "12 PO Boxwood Lane",
           "12 Depo Box Avenue",  // P and O belong to another word
           "1 Expo Boxing Arena",
           "Cape Bx 12",
           "99 Fox Hollow",
           "3 Knox Road",
           "Post Office Road 12",
           "1 Old Post Office Square",
           "5 Postbox Lane",
           "8 Post Oak Bend",
           "12 Pob Street",
           "P O Boulevard 12",
           "200 Poblano Drive",
           "1 Probert St",
           "RR 2 Box 152",    // rural route
           "HC 68 Box 23A",   // highway contract route
           "PSC 802 Box 74",  // military
           "UNIT 2050 BOX 4190",
           "CMR 450 Box 12 APO",
           "APO Box 12",
           "Drawer Street 12",
           "9 Drawbridge Road",
           "12 Citadel Street",
           "Apartamento 12",
           "Apt 4B",
           "PMB 12",
           "500 Main St PMB 123",
           "Box 65, RR 2",
           "12 Post Office Boxwood Lane",
           "333 Potomac Street",
           "12 Miller Valley Road",
           "Robin Drive 7",
           "3 Apto 12",
           "Calle Apdo",
           "# 12",
           "PO 12",
           "\xc3\x89xp\xc3\xb4 Box",  // accented letters are letters
           "12 Calle Ca\xc3\xb1o P\xc3\xb3 B\xc3\xb3x",
       }) {
    EXPECT_FALSE(NamesPoBox(line)) << line;
    EXPECT_FALSE(IsBareBox(line)) << line;
  }
}

TEST(PoBox, BareBox) {
  for (const char* line : {"Box 12", "BOX 12", "Box #12", "box no. 12", "Box12", " Box 12A ", "B0X 7", "Box 12-B"}) {
    EXPECT_TRUE(IsBareBox(line)) << line;
    EXPECT_FALSE(NamesPoBox(line)) << line;
  }
  for (const char* line : {"Box", "Box Street 12", "Box 12 Main Street", "Box Elder 12", "12 Box", "RR 1 Box 12"}) {
    EXPECT_FALSE(IsBareBox(line)) << line;
  }
}

TEST(PoBox, OutlineHasOneByteForEachCharacter) {
  EXPECT_EQ(Outline("P.O. Box #7"), "p o  box  7");
  EXPECT_EQ(Outline("\u674e7\u0301\u0667\u2003\u200b"), "#7+9  ");  // ideograph, accent, Arabic digit, blanks
  EXPECT_EQ(Outline(""), "");
}

}  // namespace
}  // namespace userintent::intent
