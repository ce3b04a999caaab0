package com.example.userintent;

import com.example.userintent.v1.Creation;
import com.example.userintent.v1.CreationState;
import com.example.userintent.v1.UserIntent;
import com.example.userintent.v1.UserIntentStatus;
import io.grpc.Status;
import java.util.EnumSet;
import java.util.Map;
import java.util.Set;

/**
 * What waitForOutcome and waitForStatus make of the events of a watch of one request. One thread at a time.
 *
 * @param <T> what is waited for
 */
abstract class Wait<T> {
  private static final Set<CreationState> DECIDED = EnumSet.of(CreationState.CREATION_STATE_CREATED,
      CreationState.CREATION_STATE_REJECTED, CreationState.CREATION_STATE_NOT_SENT);
  private static final Set<UserIntentStatus> FINAL = EnumSet.of(UserIntentStatus.USER_INTENT_STATUS_CONVERTED_TO_USER,
      UserIntentStatus.USER_INTENT_STATUS_REJECTED, UserIntentStatus.USER_INTENT_STATUS_SUSPENDED);
  private static final String STOP = "STOP";

  private final String requestId;
  private boolean recorded;

  private Wait(String requestId) {
    this.requestId = requestId;
  }

  /** What the state of a creation that is decided means; null: not what is waited for, but it may become that. */
  abstract T judge(Creation creation, int streams);

  /** Null: not yet. Throws when it will never be. */
  final T take(WatchEvent event, int streams) {
    switch (event.getKind()) {
      case CHANGED:
        recorded = true;
        return DECIDED.contains(event.getCreation().getState()) ? judge(event.getCreation(), streams) : null;
      case RESET:
        recorded = false;
        return null;
      default:
        if (recorded) {
          return null;
        }
        throw failed(Status.Code.NOT_FOUND, "no such request of this caller is recorded", "REQUEST_NOT_FOUND",
            Map.of("recovery", STOP), streams);
    }
  }

  final UserIntentException failed(
      Status.Code code, String message, String reason, Map<String, String> words, int streams) {
    Decoded decoded = Decoded.made(code, message, reason, words).ofRead("", streams);
    return UserIntentException.of(decoded.last(NotRepeated.NOT_RETRYABLE), requestId, streams, null, null);
  }

  /** Waits in this thread. */
  final T block(Watch watch, WatchSource source) {
    while (true) {
      T result = take(watch.next(), source.streams());
      if (result != null) {
        return result;
      }
    }
  }

  /** Waits in the source's threads. Whatever else completes the future ends the wait. */
  final CallFuture<T> start(WatchSource source, CallFuture<T> future) {
    source.start(new WatchSink() {
      @Override
      public void event(WatchEvent event) {
        try {
          T result = take(event, source.streams());
          if (result == null) {
            source.request(1);
          } else {
            future.complete(result);
          }
        } catch (UserIntentException never) {
          future.completeExceptionally(never);
        }
      }

      @Override
      public void ended(RuntimeException error) {
        future.completeExceptionally(error);
      }
    });
    source.request(1);
    future.whenComplete((result, failure) -> source.close());
    return future;
  }

  static Wait<Creation> forOutcome(String requestId) {
    return new Wait<>(requestId) {
      @Override
      Creation judge(Creation creation, int streams) {
        return creation;
      }
    };
  }

  static Wait<UserIntent> forStatus(String requestId, Set<UserIntentStatus> statuses) {
    Set<UserIntentStatus> wanted = Set.copyOf(statuses);
    return new Wait<>(requestId) {
      @Override
      UserIntent judge(Creation creation, int streams) {
        if (creation.getState() != CreationState.CREATION_STATE_CREATED) {
          throw failed(Status.Code.FAILED_PRECONDITION, "there is no intent: the request is " + creation.getState(),
              "NOT_CREATED", Map.of("recovery", STOP), streams);
        }
        UserIntent intent = creation.getUserIntent();
        if (wanted.contains(intent.getStatus())) {
          return intent;
        }
        if (FINAL.contains(intent.getStatus())) {
          throw failed(Status.Code.FAILED_PRECONDITION, "the status is " + intent.getStatus() + ", and stays so",
              UserIntentException.STATUS_FINAL,
              Map.of("recovery", STOP, "user_intent_id", intent.getId(), "final_status", intent.getStatus().name()),
              streams);
        }
        return null;
      }
    };
  }
}
