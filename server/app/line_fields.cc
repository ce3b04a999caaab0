#include "server/app/line_fields.h"

#include <span>
#include <utility>

#include "server/base/uuid.h"

namespace userintent {

using observe::Field;
using observe::Key;
using observe::SafeText;

void LineFields::Add(Key key, std::string text) {
  if (text.empty()) return;
  std::string& kept = texts_.at(text_count_++) = std::move(text);
  Add(Field(key, SafeText(kept)));
}

void LineFields::Add(Key key, std::string_view text) {
  if (!text.empty()) Add(Field(key, SafeText(text)));
}

void LineFields::Add(const usecase::Trail& trail) {
  if (trail.attempt_id) Add("attempt_id", UuidText(*trail.attempt_id));
  if (trail.posts > 0) Add(Field("attempts", trail.posts));
  if (trail.begin) Add(Field("begin_ms", MicrosOf(*trail.begin)));
  if (trail.queued) Add(Field("queue_ms", MicrosOf(*trail.queued)));
  if (trail.posts > 0) Add(Field("upstream_ms", MicrosOf(trail.upstream)));
  if (trail.finish) Add(Field("finish_ms", MicrosOf(*trail.finish)));
}

void LineFields::Write(observe::Level level, observe::Event event) const {
  observe::Log(level, event, std::span<const Field>(fields_.data(), fields_.size()));
}

}  // namespace userintent
