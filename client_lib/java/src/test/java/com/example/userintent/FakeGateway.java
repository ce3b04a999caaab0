package com.example.userintent;

import com.example.userintent.v1.CreateUserIntentRequest;
import com.example.userintent.v1.CreateUserIntentResponse;
import com.example.userintent.v1.Creation;
import com.example.userintent.v1.CreationState;
import com.example.userintent.v1.GetAuthorizationUrlRequest;
import com.example.userintent.v1.GetAuthorizationUrlResponse;
import com.example.userintent.v1.GetCreationRequest;
import com.example.userintent.v1.GetCreationResponse;
import com.example.userintent.v1.GetUserIntentRequest;
import com.example.userintent.v1.GetUserIntentResponse;
import com.example.userintent.v1.Heartbeat;
import com.example.userintent.v1.Reset;
import com.example.userintent.v1.Synced;
import com.example.userintent.v1.UserIntent;
import com.example.userintent.v1.UserIntentServiceGrpc;
import com.example.userintent.v1.UserIntentStatus;
import com.example.userintent.v1.WatchUserIntentsRequest;
import com.example.userintent.v1.WatchUserIntentsResponse;
import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.Duration;
import com.google.protobuf.Message;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import io.grpc.Context;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.concurrent.ConcurrentLinkedQueue;
import java.util.concurrent.CopyOnWriteArrayList;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.Semaphore;
import java.util.concurrent.TimeUnit;

/** A gateway that answers as it is told: the answers in turn, then OK for ever. */
final class FakeGateway extends UserIntentServiceGrpc.UserIntentServiceImplBase {
  static final Metadata.Key<byte[]> DETAILS =
      Metadata.Key.of("grpc-status-details-bin", Metadata.BINARY_BYTE_MARSHALLER);
  static final Metadata.Key<String> PUSHBACK =
      Metadata.Key.of("grpc-retry-pushback-ms", Metadata.ASCII_STRING_MARSHALLER);
  /** An answer that does not come. */
  static final StatusRuntimeException SILENCE = Status.OK.asRuntimeException();

  final Queue<StatusRuntimeException> answers = new ConcurrentLinkedQueue<>();
  final List<CreateUserIntentRequest> requests = new CopyOnWriteArrayList<>();
  final List<GetUserIntentRequest> reads = new CopyOnWriteArrayList<>();
  final List<GetAuthorizationUrlRequest> authorizations = new CopyOnWriteArrayList<>();
  final Queue<Script> streams = new ConcurrentLinkedQueue<>(); // of watches, in turn; then empty ones
  final List<WatchUserIntentsRequest> watches = new CopyOnWriteArrayList<>();
  final List<Long> watchTimes = new CopyOnWriteArrayList<>(); // ns
  final Semaphore watchBegan = new Semaphore(0);
  final Semaphore watchCancelled = new Semaphore(0);
  final List<Long> timeouts = new CopyOnWriteArrayList<>(); // ms
  final CountDownLatch silent = new CountDownLatch(1); // open when a call hangs in silence
  final CountDownLatch cancelled = new CountDownLatch(1); // open when such a call was cancelled

  /** What one watch hears: these messages, then this end: null for a clean one, SILENCE for none. */
  static final class Script {
    final List<WatchUserIntentsResponse> messages;
    final StatusRuntimeException end;

    Script(StatusRuntimeException end, WatchUserIntentsResponse... messages) {
      this.messages = List.of(messages);
      this.end = end;
    }
  }

  static WatchUserIntentsResponse changed(Creation creation, String token) {
    return WatchUserIntentsResponse.newBuilder()
        .setChanged(creation)
        .setResumeToken(ByteString.copyFromUtf8(token))
        .build();
  }

  static WatchUserIntentsResponse changed(CreationState state, String token) {
    return changed(Creation.newBuilder().setRequestId("R").setState(state).build(), token);
  }

  static WatchUserIntentsResponse changed(UserIntentStatus status, String token) {
    return changed(Creation.newBuilder()
                       .setRequestId("R")
                       .setState(CreationState.CREATION_STATE_CREATED)
                       .setUserIntent(UserIntent.newBuilder().setId("intent").setStatus(status))
                       .build(),
        token);
  }

  static WatchUserIntentsResponse synced(String token) {
    return WatchUserIntentsResponse.newBuilder()
        .setSynced(Synced.getDefaultInstance())
        .setResumeToken(ByteString.copyFromUtf8(token))
        .build();
  }

  static WatchUserIntentsResponse heartbeat(String token) {
    return WatchUserIntentsResponse.newBuilder()
        .setHeartbeat(Heartbeat.getDefaultInstance())
        .setResumeToken(ByteString.copyFromUtf8(token))
        .build();
  }

  static WatchUserIntentsResponse reset(String token) {
    return WatchUserIntentsResponse.newBuilder()
        .setReset(Reset.getDefaultInstance())
        .setResumeToken(ByteString.copyFromUtf8(token))
        .build();
  }

  @Override
  public void watchUserIntents(WatchUserIntentsRequest request, StreamObserver<WatchUserIntentsResponse> observer) {
    watches.add(request);
    watchTimes.add(System.nanoTime());
    Context.current().addListener(ended -> watchCancelled.release(), Runnable::run);
    Script script = streams.poll();
    if (script == null) {
      script = new Script(null);
    }
    script.messages.forEach(observer::onNext);
    if (script.end == null) {
      observer.onCompleted();
    } else if (script.end != SILENCE) {
      observer.onError(script.end);
    }
    watchBegan.release();
  }

  @Override
  public void getAuthorizationUrl(
      GetAuthorizationUrlRequest request, StreamObserver<GetAuthorizationUrlResponse> observer) {
    authorizations.add(request);
    answer(GetAuthorizationUrlResponse.newBuilder().setUrl("https://app.example.com/").build(), observer);
  }

  static CreateUserIntentRequest person() {
    return CreateUserIntentRequest.newBuilder()
        .setEmail("zorblatt@example.com")
        .setFirstName("Vexmoor")
        .setSsnLastFour("8259")
        .putMetadata("canary_key", "canary-value")
        .build();
  }

  static StatusRuntimeException error(Status.Code code, Metadata trailers, Message... details) {
    List<Any> packed = new ArrayList<>();
    for (Message detail : details) {
      packed.add(Any.pack(detail));
    }
    com.google.rpc.Status status =
        com.google.rpc.Status.newBuilder().setCode(code.value()).setMessage("told").addAllDetails(packed).build();
    trailers.put(DETAILS, status.toByteArray());
    return code.toStatus().withDescription("told").asRuntimeException(trailers);
  }

  static ErrorInfo info(String reason, String... words) {
    ErrorInfo.Builder info = ErrorInfo.newBuilder().setDomain("userintent.v1").setReason(reason);
    for (int i = 0; i < words.length; i += 2) {
      info.putMetadata(words[i], words[i + 1]);
    }
    return info.build();
  }

  static RetryInfo retry(long ms) {
    Duration delay = Duration.newBuilder().setSeconds(ms / 1000).setNanos((int) (ms % 1000) * 1_000_000).build();
    return RetryInfo.newBuilder().setRetryDelay(delay).build();
  }

  static StatusRuntimeException busy(long ms) {
    return error(Status.Code.UNAVAILABLE, new Metadata(), info("OVERLOADED", "sent", "no", "recovery", "RETRY_SAME_ID"),
        retry(ms));
  }

  static StatusRuntimeException fieldInvalid() {
    Metadata trailers = new Metadata();
    trailers.put(PUSHBACK, "-1");
    BadRequest.Builder fields = BadRequest.newBuilder();
    for (String field : List.of("email", "state")) {
      fields.addFieldViolations(BadRequest.FieldViolation.newBuilder().setField(field).setDescription("a rule"));
    }
    return error(Status.Code.INVALID_ARGUMENT, trailers, info("FIELD_INVALID", "sent", "no", "recovery", "FIX_REQUEST"),
        fields.build());
  }

  @Override
  public void createUserIntent(CreateUserIntentRequest request, StreamObserver<CreateUserIntentResponse> observer) {
    requests.add(request);
    answer(CreateUserIntentResponse.newBuilder()
               .setUserIntent(UserIntent.newBuilder().setId("intent-" + request.getRequestId()))
               .build(),
        observer);
  }

  @Override
  public void getUserIntent(GetUserIntentRequest request, StreamObserver<GetUserIntentResponse> observer) {
    reads.add(request);
    answer(GetUserIntentResponse.newBuilder()
               .setUserIntent(UserIntent.newBuilder().setId("intent").setUserId("user"))
               .setStale(request.getAllowStale())
               .build(),
        observer);
  }

  private <T> void answer(T response, StreamObserver<T> observer) {
    timeouts.add(Context.current().getDeadline() == null
            ? -1L
            : Context.current().getDeadline().timeRemaining(TimeUnit.MILLISECONDS));
    StatusRuntimeException answer = answers.poll();
    if (answer == SILENCE) {
      Context.current().addListener(ended -> cancelled.countDown(), Runnable::run);
      silent.countDown();
    } else if (answer != null) {
      observer.onError(answer);
    } else {
      observer.onNext(response);
      observer.onCompleted();
    }
  }

  @Override
  public void getCreation(GetCreationRequest request, StreamObserver<GetCreationResponse> observer) {
    if (request.getRequestId().equals("none")) {
      observer.onError(error(
          Status.Code.NOT_FOUND, new Metadata(), info("REQUEST_NOT_FOUND", "sent", "no", "recovery", "FIX_REQUEST")));
      return;
    }
    GetCreationResponse.Builder response = GetCreationResponse.newBuilder();
    response.getCreationBuilder().setRequestId(request.getRequestId());
    observer.onNext(response.build());
    observer.onCompleted();
  }

  /** Every word that ErrorInfo may hold. */
  static ErrorInfo everything() {
    return info("PERSON_EXISTS")
        .toBuilder()
        .putAllMetadata(Map.of("sent", "yes", "recovery", "USE_EXISTING", "attempts_used_min", "1", "attempts_used_max",
            "2", "astra_request_id", "astra-1", "http_status", "409", "user_intent_id", "intent-1",
            "unresolved_request_id", "id-2", "replayed", "true"))
        .build();
  }
}
