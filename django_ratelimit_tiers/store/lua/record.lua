-- Write a counter that was changed into its subject's value. Put in after settle.lua. Gives
-- `record`, the new `value` and when the counter `expires`: once it can weigh nothing any more.
local lasts = window
if algorithm == SLIDING then lasts = 2 * window
elseif algorithm == BUCKET then lasts = window + (current + 1) * window / limit end
local expires = seconds + ceil(lasts / 1000000) + 1
if expires < seconds + LEAST_TTL then expires = seconds + LEAST_TTL end
if expires > LAST_SECOND then expires = LAST_SECOND end
local record = pack(RECORD, id, expires, time, current, previous)
if from then
  value = sub(value, 1, from - 1) .. record .. sub(value, from + RECORD_SIZE)
else
  value = value .. record
end
