// What the clients give to the libraries below them in place of free() and realloc(): heads and bodies pass through the
// libraries' own buffers, so what is given back is wiped first. For memory of malloc(); any thread.
#pragma once

#include <cstddef>

namespace userintent::http {

void WipingFree(void* p);

// As realloc(), and what it moved away from is wiped.
void* WipingRealloc(void* p, size_t size);

}  // namespace userintent::http
