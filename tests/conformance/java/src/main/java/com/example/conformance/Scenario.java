package com.example.conformance;

import com.example.userintent.AuthorizationUrl;
import com.example.userintent.CallFuture;
import com.example.userintent.CallSettings;
import com.example.userintent.CreateResult;
import com.example.userintent.IntentKey;
import com.example.userintent.Redacted;
import com.example.userintent.Tls;
import com.example.userintent.UserIntentClient;
import com.example.userintent.UserIntentException;
import com.example.userintent.v1.CreateUserIntentRequest;
import com.example.userintent.v1.UserIntent;
import com.example.userintent.v1.UserIntentStatus;
import com.google.gson.JsonArray;
import com.google.gson.JsonElement;
import com.google.gson.JsonObject;
import com.google.gson.JsonParser;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.UnknownFieldSet;
import com.google.protobuf.util.JsonFormat;
import java.io.IOException;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Base64;
import java.util.EnumSet;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicInteger;
import java.util.function.Function;

/** One scenario at work. Belongs to one thread. */
final class Scenario {
  private static final HttpClient HTTP = HttpClient.newBuilder().version(HttpClient.Version.HTTP_1_1).build();
  private static final long PATIENCE_NANOS = Duration.ofSeconds(20).toNanos();
  private static final Set<String> WITH_ID = Set.of("create", "end", "repeat");
  private static final int REPEATS = 400;
  private static final long PAUSE_MS = 50;

  /** A step's reason to fail. */
  private static final class Failure extends RuntimeException {
    private static final long serialVersionUID = 1;

    Failure(String text) {
      super(text);
    }
  }

  /** A call in the background. */
  private static final class Running<T> {
    final long started = System.nanoTime();
    final CallFuture<T> future;
    final Function<T, Outcome> outcome;

    Running(CallFuture<T> future, Function<T, Outcome> outcome) {
      this.future = future;
      this.outcome = outcome;
    }

    Outcome end() {
      return Outcome.of(started, () -> outcome.apply(future.join()));
    }
  }

  private final JsonObject plan;
  private final JsonObject scenario;
  private final boolean async;
  private final Map<String, UserIntentClient> clients = new HashMap<>();
  private final Map<String, UserIntentClient> clientOf = new HashMap<>(); // call -> its client
  private final Map<String, Outcome> outcomes = new HashMap<>();
  private final Map<String, Running<?>> running = new HashMap<>();
  private final Map<String, Watching> watches = new HashMap<>();
  private int number;

  /** async: with the library's futures and publisher, instead of its blocking calls and its iterator. */
  Scenario(JsonObject plan, JsonObject scenario, boolean async) {
    this.plan = plan;
    this.scenario = scenario;
    this.async = async;
  }

  /** Null, or why it failed. */
  String run() {
    String where = "start";
    try {
      for (JsonElement step : scenario.getAsJsonArray("steps")) {
        where = "step " + number;
        perform(step.getAsJsonObject());
        number++;
      }
      where = "end";
      checkEnd();
      return null;
    } catch (Failure failure) {
      return where + ": " + failure.getMessage();
    } catch (Exception unexpected) {
      StringBuilder text = new StringBuilder(where + ": " + unexpected);
      for (int i = 0; i < Math.min(6, unexpected.getStackTrace().length); i++) {
        text.append(" | ").append(unexpected.getStackTrace()[i]);
      }
      return text.toString();
    } finally {
      clients.values().forEach(UserIntentClient::close); // with their watches
    }
  }

  private void perform(JsonObject step) throws Exception {
    switch (text(step, "do")) {
      case "create":
        create(step);
        break;
      case "begin":
        clientOf.put(text(step, "name"), client(step));
        running.put(text(step, "name"),
            new Running<>(client(step).createUserIntentAsync(request(step), settings(step)), Outcome::created));
        break;
      case "cancel":
        running.get(text(step, "name")).future.cancel(true);
        break;
      case "end":
        ended(step, running.remove(text(step, "name")).end());
        break;
      case "repeat":
        repeat(step);
        break;
      case "get":
        get(step);
        break;
      case "read":
        read(step);
        break;
      case "watch":
        watch(step);
        break;
      case "events":
        events(step);
        break;
      case "stop":
        if (!watches.get(text(step, "name")).stop()) {
          throw new Failure("the watch does not stop");
        }
        break;
      case "watch_ended":
        watchEnded(step);
        break;
      case "wait_for_outcome":
      case "wait_for_status":
        waitFor(step);
        break;
      case "begin_wait":
        beginWait(step);
        break;
      case "get_authorization_url":
        getAuthorizationUrl(step);
        break;
      case "authorization_url":
        authorizationUrl(step);
        break;
      case "text":
        stringForm(step);
        break;
      case "http":
        fetch(step.has("method") ? text(step, "method") : "POST", text(plan, text(step, "to")) + text(step, "path"),
            step.has("body") ? step.get("body") : new JsonObject());
        break;
      case "wait_posts":
        waitPosts(step);
        break;
      case "storm":
        storm(step);
        break;
      default:
        throw new Failure("this runner does not know " + text(step, "do"));
    }
  }

  private static String text(JsonObject object, String name) {
    JsonElement value = object.get(name);
    return value == null ? "" : value.getAsString();
  }

  private UserIntentClient client(JsonObject step) {
    return clients.computeIfAbsent(text(step, "client"), name -> {
      JsonObject told = plan.getAsJsonObject("clients").getAsJsonObject(name);
      UserIntentClient.Builder builder = UserIntentClient.builder(text(told, "address"));
      if (told.has("max_tries")) {
        builder.maxTries(told.get("max_tries").getAsInt());
      }
      if (!told.has("ca_file")) {
        return builder.plaintext().build();
      }
      Tls tls = Tls.trusting(Path.of(text(told, "ca_file"))).withServerName(text(told, "server_name"));
      if (told.has("cert_file")) {
        tls = tls.withCertificate(Path.of(text(told, "cert_file")), Path.of(text(told, "key_file")));
      }
      return builder.tls(tls).build();
    });
  }

  private CreateUserIntentRequest request(JsonObject step) throws InvalidProtocolBufferException {
    CreateUserIntentRequest.Builder request = CreateUserIntentRequest.newBuilder();
    JsonFormat.parser().merge(step.get("request").toString(), request);
    if (step.has("unknown_field")) {
      request.setUnknownFields(
          UnknownFieldSet.newBuilder().addField(22, UnknownFieldSet.Field.newBuilder().addVarint(1).build()).build());
    }
    clean(forms(request.build()));
    return request.build();
  }

  /** How a request becomes text in a log. */
  private static List<String> forms(CreateUserIntentRequest request) {
    return List.of(Redacted.toString(request), String.format("%s", Redacted.of(request)), "" + Redacted.of(request),
        Redacted.toString(request.toBuilder()));
  }

  private static CallSettings settings(JsonObject step) {
    CallSettings settings = CallSettings.defaults();
    if (step.has("deadline_ms")) {
      long ms = step.get("deadline_ms").getAsLong();
      settings = settings.withTimeout(ms < 0 ? Duration.ofNanos(1) : Duration.ofMillis(ms)); // below 0: over at once
    }
    return step.has("max_tries") ? settings.withMaxTries(step.get("max_tries").getAsInt()) : settings;
  }

  private void clean(List<String> texts) {
    for (JsonElement word : plan.getAsJsonArray("never_in_text")) {
      for (String text : texts) {
        if (text.contains(word.getAsString())) {
          throw new Failure("a string form holds " + word);
        }
      }
    }
  }

  // -- the steps
  // --------------------------------------------------------------------------------------------------------

  private void create(JsonObject step) throws InvalidProtocolBufferException {
    UserIntentClient client = client(step);
    CreateUserIntentRequest request = request(step);
    CallSettings settings = settings(step);
    clientOf.put(text(step, "name"), client);
    ended(step,
        Outcome.of(System.nanoTime(),
            ()
                -> Outcome.created(async ? client.createUserIntentAsync(request, settings).join()
                                         : client.createUserIntent(request, settings))));
  }

  private void repeat(JsonObject step) {
    UserIntentException error = outcomes.get(text(step, "of")).error;
    UserIntentClient client = clientOf.get(text(step, "of"));
    CallSettings settings = settings(step);
    if (error == null) {
      throw new Failure("no call " + step.get("of") + " ended with an error");
    }
    clientOf.put(text(step, "name"), client);
    ended(step,
        Outcome.of(System.nanoTime(),
            ()
                -> Outcome.created(
                    async ? client.repeatAsync(error, settings).join() : client.repeat(error, settings))));
  }

  private void get(JsonObject step) {
    UserIntentClient client = client(step);
    String id = named(step, "request_id");
    ended(step,
        Outcome.of(System.nanoTime(),
            () -> Outcome.got(id, async ? client.getCreationAsync(id).join() : client.getCreation(id))));
  }

  /** The id itself, or for @name that field of the call named so. */
  private String named(JsonObject step, String field) {
    return named(text(step, field), field);
  }

  private String named(String told, String field) {
    return told.startsWith("@") ? (String) outcomes.get(told.substring(1)).fields.get(field) : told;
  }

  private void read(JsonObject step) {
    UserIntentClient client = client(step);
    IntentKey key = key(step);
    CallSettings settings = settings(step);
    if (step.has("max_age_ms")) {
      settings = settings.withMaxAge(Duration.ofMillis(step.get("max_age_ms").getAsLong()));
    }
    CallSettings all = step.has("allow_stale") ? settings.withAllowStale() : settings;
    ended(step,
        Outcome.of(System.nanoTime(),
            ()
                -> Outcome.read(named(step, "request_id"),
                    async ? client.getUserIntentAsync(key, all).join() : client.getUserIntent(key, all))));
  }

  private void watch(JsonObject step) {
    CallSettings settings = CallSettings.defaults();
    if (step.has("resume_of")) {
      settings = settings.withResumeToken(watches.get(text(step, "resume_of")).token());
    } else if (step.has("resume_token")) {
      settings = settings.withResumeToken(ByteString.copyFrom(Base64.getDecoder().decode(text(step, "resume_token"))));
    }
    List<String> ids = new ArrayList<>();
    for (JsonElement id : step.getAsJsonArray("request_ids")) {
      ids.add(named(id.getAsString(), "request_id"));
    }
    watches.put(text(step, "name"), new Watching(client(step), ids, settings, async));
  }

  /** Holds what the watch gives to the list of the step. */
  private void events(JsonObject step) throws InterruptedException {
    boolean exact = step.has("exact") && step.get("exact").getAsBoolean();
    int entry = 0;
    for (JsonElement expected : step.getAsJsonArray("expect")) {
      List<String> passed = new ArrayList<>();
      String differs = "";
      do {
        Outcome event = watches.get(text(step, "name")).next();
        if (event == null) {
          throw new Failure("entry " + entry + ": no such event; passed over " + passed);
        }
        clean(event.texts);
        differs = differs(expected.getAsJsonObject(), event);
        if (differs != null && (exact || !event.fields.get("event").equals("changed"))) {
          throw new Failure("entry " + entry + ": " + differs + "; passed over " + passed);
        }
        passed.add(differs);
        outcomes.put(text(step, "name"), event);
      } while (differs != null);
      entry++;
    }
  }

  private void watchEnded(JsonObject step) {
    Watching watching = watches.get(text(step, "name"));
    ended(step, Outcome.of(System.nanoTime(), () -> {
      try {
        watching.throwEnd();
      } catch (RuntimeException end) {
        throw end;
      } catch (Exception unexpected) {
        throw new IllegalStateException(unexpected);
      }
      throw new Failure("the watch does not end by itself");
    }));
  }

  private static Set<UserIntentStatus> statuses(JsonObject step) {
    Set<UserIntentStatus> statuses = EnumSet.noneOf(UserIntentStatus.class);
    for (JsonElement name : step.getAsJsonArray("statuses")) {
      statuses.add(UserIntentStatus.valueOf("USER_INTENT_STATUS_" + name.getAsString()));
    }
    return statuses;
  }

  private void waitFor(JsonObject step) {
    UserIntentClient client = client(step);
    String id = named(step, "request_id");
    CallSettings settings = settings(step);
    ended(step, Outcome.of(System.nanoTime(), () -> {
      if (text(step, "do").equals("wait_for_outcome")) {
        return Outcome.got(
            id, async ? client.waitForOutcomeAsync(id, settings).join() : client.waitForOutcome(id, settings));
      }
      return Outcome.waited(id,
          async ? client.waitForStatusAsync(id, statuses(step), settings).join()
                : client.waitForStatus(id, statuses(step), settings));
    }));
  }

  private void beginWait(JsonObject step) {
    UserIntentClient client = client(step);
    String id = named(step, "request_id");
    running.put(text(step, "name"),
        text(step, "wait").equals("outcome")
            ? new Running<>(client.waitForOutcomeAsync(id, settings(step)), creation -> Outcome.got(id, creation))
            : new Running<>(
                client.waitForStatusAsync(id, statuses(step), settings(step)), intent -> Outcome.waited(id, intent)));
  }

  private void getAuthorizationUrl(JsonObject step) {
    UserIntentClient client = client(step);
    IntentKey key = key(step);
    CallSettings settings = settings(step);
    String redirectUri = text(step, "redirect_uri");
    String state = text(step, "state");
    ended(step,
        Outcome.of(System.nanoTime(),
            ()
                -> Outcome.linked(named(step, "request_id"),
                    async ? client.getAuthorizationUrlAsync(key, redirectUri, state, settings).join()
                          : client.getAuthorizationUrl(key, redirectUri, state, settings))));
  }

  private void authorizationUrl(JsonObject step) {
    Map<String, Object> of = outcomes.get(text(step, "of")).fields;
    UserIntent intent = UserIntent.newBuilder()
                            .setId((String) of.get("user_intent_id"))
                            .setUserId((String) of.get("user_id"))
                            .setStatus(UserIntentStatus.valueOf("USER_INTENT_STATUS_" + of.get("status")))
                            .build();
    ended(step,
        Outcome.of(System.nanoTime(),
            ()
                -> Outcome.made(intent,
                    AuthorizationUrl.of(text(step, "app_url"), text(step, "client_id"), intent,
                        text(step, "redirect_uri"), text(step, "state")))));
  }

  private IntentKey key(JsonObject step) {
    return step.has("user_intent_id") ? IntentKey.ofIntent(named(step, "user_intent_id"))
                                      : IntentKey.ofRequest(named(step, "request_id"));
  }

  private void stringForm(JsonObject step) throws InvalidProtocolBufferException {
    for (String form : forms(request(step))) {
      for (JsonElement shown : step.getAsJsonArray("shows")) {
        if (!form.contains(shown.getAsString())) {
          throw new Failure("the string form lacks " + shown);
        }
      }
      for (JsonElement hidden : step.getAsJsonArray("hides")) {
        if (form.contains(hidden.getAsString())) {
          throw new Failure("the string form holds " + hidden);
        }
      }
    }
  }

  private void waitPosts(JsonObject step) throws IOException, InterruptedException {
    long end = System.nanoTime() + PATIENCE_NANOS;
    while (posts(text(step, "email")).size() < step.get("count").getAsInt()) {
      if (System.nanoTime() > end) {
        throw new Failure(step.get("count") + " POSTs did not arrive");
      }
      Thread.sleep(10);
    }
  }

  /** Holds a call's outcome to what the step expects, and keeps it under the step's name. */
  private void ended(JsonObject step, Outcome outcome) {
    String name = text(step, "name");
    if (!name.isEmpty()) {
      outcomes.put(name, outcome);
    }
    String differs = differs(step.getAsJsonObject("expect"), outcome);
    if (differs != null) {
      throw new Failure(differs);
    }
    if (outcome.fields.get("request_id").equals("") && WITH_ID.contains(text(step, "do"))) {
      throw new Failure("request_id: empty");
    }
    clean(outcome.texts);
    if (scenario.has("report") && (text(step, "do").equals("create") || text(step, "do").equals("get"))) {
      Map<String, Object> fields = outcome.fields;
      Object value = fields.get("ok").equals(true)
          ? fields.get("user_intent_id")
          : fields.get("code") + "/" + fields.get("reason") + "/" + fields.get("sent") + "/" + fields.get("recovery");
      System.out.println("answer " + text(scenario, "name") + " " + number + " " + value);
    }
  }

  /** The first field that is not as expected; null: all are. */
  private String differs(JsonObject expect, Outcome outcome) {
    for (String field : expect.keySet()) {
      Object actual = outcome.fields.get(field);
      if (actual == null) {
        throw new Failure("no field " + field);
      }
      if (!holds(field, expect.get(field), actual)) {
        return field + ": expected " + expect.get(field) + ", got " + actual + " (" + outcome.error + ")";
      }
    }
    return null;
  }

  private boolean holds(String field, JsonElement expected, Object actual) {
    if (expected.isJsonObject()) {
      JsonObject range = expected.getAsJsonObject();
      long value = (Long) actual;
      return (!range.has("min") || value >= range.get("min").getAsLong())
          && (!range.has("max") || value <= range.get("max").getAsLong());
    }
    if (expected.isJsonArray()) {
      return field.equals("violations") ? sameNames(expected.getAsJsonArray(), (List<?>) actual)
                                        : anyHolds(field, expected.getAsJsonArray(), actual);
    }
    if (expected.getAsJsonPrimitive().isNumber()) {
      return actual.equals(expected.getAsLong());
    }
    if (expected.getAsJsonPrimitive().isBoolean()) {
      return actual.equals(expected.getAsBoolean());
    }
    String text = expected.getAsString();
    if (text.equals("*")) {
      return !List.of("", 0L, false, List.of()).contains(actual);
    }
    return actual.equals(text.startsWith("@") ? outcomes.get(text.substring(1)).fields.get(field) : text);
  }

  private boolean anyHolds(String field, JsonArray expected, Object actual) {
    for (JsonElement one : expected) {
      if (holds(field, one, actual)) {
        return true;
      }
    }
    return false;
  }

  private static boolean sameNames(JsonArray expected, List<?> actual) {
    TreeSet<String> names = new TreeSet<>();
    expected.forEach(name -> names.add(name.getAsString()));
    TreeSet<String> found = new TreeSet<>();
    actual.forEach(name -> found.add((String) name));
    return names.equals(found) && actual.size() == found.size();
  }

  // -- the sandbox's account
  // --------------------------------------------------------------------------------------------

  private static JsonObject fetch(String method, String url, JsonElement body)
      throws IOException, InterruptedException {
    HttpRequest request = HttpRequest.newBuilder(URI.create(url))
                              .timeout(Duration.ofSeconds(60))
                              .header("Content-Type", "application/json")
                              .method(method,
                                  body == null ? HttpRequest.BodyPublishers.noBody()
                                               : HttpRequest.BodyPublishers.ofString(body.toString()))
                              .build();
    HttpResponse<String> answer = HTTP.send(request, HttpResponse.BodyHandlers.ofString());
    if (answer.statusCode() / 100 != 2) {
      throw new Failure(method + " " + url + ": " + answer.statusCode() + " " + answer.body());
    }
    return answer.body().isBlank() ? new JsonObject() : JsonParser.parseString(answer.body()).getAsJsonObject();
  }

  private static String query(String email) {
    return "?email=" + URLEncoder.encode(email, StandardCharsets.UTF_8);
  }

  private JsonArray posts(String email) throws IOException, InterruptedException {
    return account(email, "posts");
  }

  private JsonArray account(String email, String what) throws IOException, InterruptedException {
    JsonElement all = fetch("GET", text(plan, "sandbox") + "/accounting" + query(email), null).get(what);
    return all == null || all.isJsonNull() ? new JsonArray() : all.getAsJsonArray();
  }

  private JsonObject member(String name) {
    return scenario.has(name) ? scenario.getAsJsonObject(name) : new JsonObject();
  }

  private void checkEnd() throws IOException, InterruptedException {
    for (String email : member("posts").keySet()) {
      int count = posts(email).size();
      if (count != member("posts").get(email).getAsInt()) {
        throw new Failure("expected " + member("posts").get(email) + " POSTs, the sandbox counted " + count);
      }
    }
    for (String email : member("gets").keySet()) {
      int count = account(email, "gets").size();
      if (count != member("gets").get(email).getAsInt()) {
        throw new Failure("expected " + member("gets").get(email) + " GETs, the sandbox counted " + count);
      }
    }
    for (String email : member("bodies").keySet()) {
      JsonArray posts = posts(email);
      JsonObject body = posts.get(posts.size() - 1).getAsJsonObject().getAsJsonObject("body");
      JsonObject wanted = member("bodies").getAsJsonObject(email);
      for (String name : wanted.keySet()) {
        if (name.equals("metadata") && body.has(name)) {
          body.getAsJsonObject(name).remove("gateway_attempt_id");
        }
        if (!wanted.get(name).equals(body.get(name))) {
          throw new Failure(name + " arrived changed");
        }
      }
    }
    for (String email : member("calls").keySet()) {
      JsonObject calls = fetch("GET", text(plan, "control") + "/calls" + query(email), null);
      if (!calls.get("count").equals(member("calls").get(email)) || calls.getAsJsonArray("ids").size() > 1) {
        throw new Failure("expected " + member("calls").get(email) + " RPCs with one id, got " + calls);
      }
    }
  }

  // -- storm
  // ------------------------------------------------------------------------------------------------------------

  private void storm(JsonObject step) throws Exception {
    UserIntentClient client = client(step);
    int calls = step.get("calls").getAsInt();
    AtomicInteger next = new AtomicInteger();
    AtomicInteger repeats = new AtomicInteger();
    Map<String, String> ends = new ConcurrentHashMap<>();
    ExecutorService pool = Executors.newFixedThreadPool(step.get("concurrency").getAsInt());
    List<Future<?>> workers = new ArrayList<>();
    for (int i = 0; i < step.get("concurrency").getAsInt(); i++) {
      workers.add(pool.submit(() -> {
        for (int call = next.getAndIncrement(); call < calls; call = next.getAndIncrement()) {
          String email = text(step, "email_prefix") + call + text(step, "email_suffix");
          CreateUserIntentRequest request = request(step).toBuilder().setEmail(email).build();
          ends.put(email, oneOfStorm(client, request, repeats));
        }
        return null;
      }));
    }
    pool.shutdown();
    for (Future<?> worker : workers) {
      worker.get();
    }
    JsonObject byEmail = fetch("GET", text(plan, "sandbox") + "/accounting/summary", null).getAsJsonObject("by_email");
    int ok = 0;
    int unknown = 0;
    int allPosts = 0;
    for (Map.Entry<String, String> end : ends.entrySet()) {
      JsonObject account = byEmail.getAsJsonObject(end.getKey());
      int posts = account == null ? 0 : account.get("posts").getAsInt();
      int intents = account == null ? 0 : account.get("intents").getAsInt();
      allPosts += posts;
      if (posts > 1 || intents > 1) {
        throw new Failure("two POSTs or intents for one request: " + account);
      }
      if (end.getValue().equals("ok")) {
        ok++;
        if (posts != 1 || intents != 1) {
          throw new Failure("ok, but " + account);
        }
      } else if (end.getValue().equals("unknown")) {
        unknown++;
      } else {
        throw new Failure("another end: " + end.getValue());
      }
    }
    System.out.println("storm: " + ends.size() + " calls, " + ok + " ok, " + unknown + " unknown, " + repeats
        + " repeats by hand, " + allPosts + " POSTs");
    if (ends.size() != calls || ok < step.get("min_ok").getAsInt()) {
      throw new Failure(ok + " of " + ends.size() + " ok");
    }
  }

  private String oneOfStorm(UserIntentClient client, CreateUserIntentRequest request, AtomicInteger repeats)
      throws InterruptedException {
    UserIntentException error = null;
    for (int i = 0; i <= REPEATS; i++) {
      UserIntentException before = error;
      Outcome outcome = Outcome.of(System.nanoTime(), () -> Outcome.created(callOfStorm(client, request, before)));
      clean(outcome.texts);
      if (outcome.error == null) {
        return "ok";
      }
      error = outcome.error;
      if (error.getReason().equals("OUTCOME_UNKNOWN")) {
        return "unknown";
      }
      if (!(error.isMaybeSent() && error.getReason().isEmpty() || error.getRecovery().equals("RETRY_SAME_ID")
              || error.getReason().equals("REQUEST_IN_PROGRESS"))) {
        return error.toString();
      }
      repeats.incrementAndGet();
      Thread.sleep(PAUSE_MS);
    }
    return "given up: " + error;
  }

  private CreateResult callOfStorm(
      UserIntentClient client, CreateUserIntentRequest request, UserIntentException before) {
    if (async) {
      return (before == null ? client.createUserIntentAsync(request) : client.repeatAsync(before)).join();
    }
    return before == null ? client.createUserIntent(request) : client.repeat(before);
  }
}
