"""What the modules of wintersweet 1.1.4 define: its public names, read from the published package."""

NAMES = {
    "asyncs.cache": "CacheWrap ShareCache",
    "asyncs.http": "delete download get head options patch post put request",
    "asyncs.http.api": "delete download get head options patch post put request request_stream request_ws",
    "asyncs.http.default": "DEFAULT_DOWNLOAD_TIMEOUT DEFAULT_SSL_CONTEXT get_session_args",
    "asyncs.http.response": "BaseResponse DownloadResponse HTTPResponse http_response_partial",
    "asyncs.ntp": "IntervalNTPClient IntervalNTPClientManager",
    "asyncs.ntp.ntp_server": "IntervalNTPClient IntervalNTPClientManager",
    "asyncs.pool": "HealthChecker ProcessHealthChecker mongo_pool_manager "
    "mysql_pool_manager redis_pool_manager",
    "asyncs.pool.base": "BasePoolManager",
    "asyncs.pool.es": "ElasticsearchManager es_manager",
    "asyncs.pool.mongo": "MongoPool MongoPoolManager mongo_pool_manager",
    "asyncs.pool.mysql": "MysqlClient MysqlPool MysqlPoolManager atomic mysql_pool_manager",
    "asyncs.pool.redis": "FrequencyLimiter MutexLock RedisEventBus RedisPool RedisPoolManager "
    "redis_pool_manager",
    "asyncs.task.interfaces": "TaskInterface",
    "asyncs.task.tasks": "AsyncIOSchedulerManager BaseAsyncIOScheduler BaseTask CrontabTask "
    "IntervalTask TIMEZONE",
    "asyncs.tools.circular": "AsyncCircularForFrame AsyncCircularForSecond AsyncCircularForTimeout",
    "framework.conf": "DynamicSetting global_setting settings",
    "framework.conf.global_setting": "APP_CONFIG DATABASES DEBUG ES_CONFIG EXCEPTION_HANDLERS LISTEN_PORT "
    "LOGGING_CONFIG MIDDLEWARES PROCESS_NUM REDIS_CONFIG SECRET",
    "framework.fastapi.app": "DEFAULT_HEADERS create_app",
    "framework.fastapi.exception_handlers": "http_exception_handler request_validation_exception_handler",
    "framework.fastapi.middlewares": "REQUEST_ID_CONTEXT RequestIDMiddleware",
    "framework.fastapi.request": "APIRoute APIRouter Request",
    "framework.fastapi.response": "ErrResponse HTTP400Response HTTP404Response HTTP405Response "
    "HTTP500Response HTTPExceptionResponse Response",
    "framework.fastapi.ws": "MessageHandler WsChatConnectionManager",
    "utils.base": "Utils install_uvloop",
    "utils.cache": "LRUCache TimestampNode",
    "utils.errors": "catch_error",
    "utils.logging": "DEFAULT_LOG_FILE_NAME DEFAULT_LOG_FILE_ROTATOR DEFAULT_LOG_INTERCEPTOR "
    "LogFileRotator LogInterceptor QueuedFileSink register_logger",
    "utils.metaclass": "SafeSingleton SafeSingletonMetaclass Singleton SingletonMetaclass",
    "utils.structure": "Node",
}
