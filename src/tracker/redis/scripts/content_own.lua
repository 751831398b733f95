-- A peer owns a content: the content's side of OWN.
-- KEYS: info, rate, owners, names, used, index, sum. ARGV: ref, until when in ms, whether
-- it has all ('1' or '0'), what the list has of it behind that; score, or nothing if it is
-- not to be listed; length, name, id in hex, most owners, most names of the content, of an
-- owner, most contents of the name in this shard, whether the content may be new.
-- Returns 'late', 'new' or 'owners' if it is refused, 'names' or 'bearers' if its name is,
-- or 'ok'.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if now > tonumber(ARGV[2]) then
    return 'late'
end
local known = redis.call('HGET', KEYS[3], ARGV[1])
if not known then
    local owners = redis.call('HLEN', KEYS[3])
    if owners >= tonumber(ARGV[9]) then
        return 'owners'
    end
    if owners == 0 then
        if ARGV[13] ~= '1' then
            return 'new'
        end
        redis.call('HSET', KEYS[1], 'length', ARGV[6])
        redis.call('HINCRBY', KEYS[7], 'contents', 1)
    end
end
if ARGV[3] == '1' then
    redis.call('HSET', KEYS[1], 'length', ARGV[6])
end
local had = known and string.sub(known, 1, 1) or '0'
if had ~= ARGV[3] then
    redis.call('HINCRBY', KEYS[1], 'complete', ARGV[3] == '1' and 1 or -1)
end
-- The revision is in the first 8 digits.
if known and string.sub(known, 2, 9) > string.sub(ARGV[4], 1, 8) then
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[3] .. string.sub(known, 2))
else
    redis.call('HSET', KEYS[3], ARGV[1], ARGV[3] .. ARGV[4])
    if ARGV[5] ~= '' then
        redis.call('ZADD', KEYS[2], ARGV[5], ARGV[1])
    else
        redis.call('ZREM', KEYS[2], ARGV[1])
    end
end
local name, used, count = ARGV[7], redis.call('HGET', KEYS[5], ARGV[1]) or '', 0
for other in string.gmatch(used, '[^/]+') do
    if other == name then
        return 'ok'
    end
    count = count + 1
end
if count >= tonumber(ARGV[11]) then
    return 'names'
end
if not redis.call('ZSCORE', KEYS[4], name) then
    if redis.call('ZCARD', KEYS[4]) >= tonumber(ARGV[10]) then
        return 'names'
    end
    local from = '[' .. name .. '/'
    if redis.call('ZLEXCOUNT', KEYS[6], from, from .. '\255') >= tonumber(ARGV[12]) then
        return 'bearers'
    end
    redis.call('ZADD', KEYS[6], 0, name .. '/' .. ARGV[8])
end
redis.call('ZINCRBY', KEYS[4], 1, name)
redis.call('HSET', KEYS[5], ARGV[1], used .. '/' .. name)
return 'ok'
