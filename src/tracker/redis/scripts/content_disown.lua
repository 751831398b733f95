-- A peer owns a content no more, or not under one of its names.
-- KEYS: info, rate, owners, names, used, index, sum. ARGV: ref, id in hex; then the name, if
-- only that ends, and '1' if the rest stays even if it was the last one.
-- Returns 1 if the peer is no owner any more.
local used = redis.call('HGET', KEYS[5], ARGV[1]) or ''
local rest = ''
for name in string.gmatch(used, '[^/]+') do
    if ARGV[3] and ARGV[3] ~= name then
        rest = rest .. '/' .. name
    elseif tonumber(redis.call('ZINCRBY', KEYS[4], -1, name)) <= 0 then
        redis.call('ZREM', KEYS[4], name)
        redis.call('ZREM', KEYS[6], name .. '/' .. ARGV[2])
    end
end
if rest ~= '' then
    redis.call('HSET', KEYS[5], ARGV[1], rest)
else
    redis.call('HDEL', KEYS[5], ARGV[1])
end
if rest ~= '' or ARGV[4] == '1' then
    return 0
end
local entry = redis.call('HGET', KEYS[3], ARGV[1])
if entry then
    redis.call('HDEL', KEYS[3], ARGV[1])
    redis.call('ZREM', KEYS[2], ARGV[1])
    if string.sub(entry, 1, 1) == '1' then
        redis.call('HINCRBY', KEYS[1], 'complete', -1)
    end
    if redis.call('HLEN', KEYS[3]) == 0 then
        redis.call('DEL', KEYS[1], KEYS[2], KEYS[4], KEYS[5])
        redis.call('HINCRBY', KEYS[7], 'contents', -1)
    end
end
return 1
