-- A peer that owns a content has another address or score.
-- KEYS: rate, owners. ARGV: ref, revision with addresses, score or nothing.
local known = redis.call('HGET', KEYS[2], ARGV[1])
if not known or string.sub(known, 2, 9) > string.sub(ARGV[2], 1, 8) then
    return 0
end
redis.call('HSET', KEYS[2], ARGV[1], string.sub(known, 1, 1) .. ARGV[2])
if ARGV[3] ~= '' then
    redis.call('ZADD', KEYS[1], ARGV[3], ARGV[1])
else
    redis.call('ZREM', KEYS[1], ARGV[1])
end
return 1
