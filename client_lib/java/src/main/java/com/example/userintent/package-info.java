/**
 * The client of the User Intent gateway.
 *
 * <p>Repeat the same request_id as often as you like: at most one User Intent is created for it, and every repeat gets
 * the same answer. A new request_id means a new creation, and one of the three attempts that an e-mail address has, for
 * ever.
 *
 * <p>Start at {@link com.example.userintent.UserIntentClient}. The messages are in {@code com.example.userintent.v1}.
 * <b>Their {@code toString()} holds personal data</b> and cannot be replaced (it is final in protobuf): a log wants
 * {@link com.example.userintent.Redacted}. Results and exceptions print none.
 */
package com.example.userintent;
